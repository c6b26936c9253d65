"""Where a node keeps what the mesh needs at run time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONFIG = "/etc/ppn/mesh.json"


@dataclass(frozen=True)
class MeshPaths:
    """The path keeper's files, below one root.

    Args:
        root: `/` on a node; a folder of its own in a test.
    """

    root: Path = Path("/")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> MeshPaths:
        """The node's paths; `PPN_ROOT` moves them all below another folder."""
        return cls(Path(environment.get("PPN_ROOT", "/")))

    @property
    def config(self) -> Path:
        """The node's interface as the path keeper reads it, written by the pool's deploy."""
        return self.root / CONFIG.lstrip("/")

    @property
    def state(self) -> Path:
        """Which path each peer takes, written by the path keeper; its folder is its own."""
        return self.root / "run/ppn/mesh/paths.json"
