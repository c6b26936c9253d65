"""The folder in memory of the pure tests, for those that take too long for them."""

from __future__ import annotations

from tests.unit.audit.conftest import in_memory

__all__ = ["in_memory"]
