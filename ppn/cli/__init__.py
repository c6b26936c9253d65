"""The `ppn` command: one sub-command group for each room of the house."""

from __future__ import annotations

from ppn.cli.app import main

__all__ = ["main"]
