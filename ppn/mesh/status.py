"""Which path each peer takes, as the path keeper tells it in its state file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ppn.durable import write_atomic
from ppn.errors import PpnError

SCHEMA = 1
# The keeper writes every five seconds; a file this old has lost its writer.
STALE_SECONDS = 15.0


class StateUnavailable(PpnError):
    """The path keeper's state file is missing or cannot be read."""

    code = "mesh_state_unavailable"


@dataclass(frozen=True)
class PeerPath:
    """The path to one peer.

    Args:
        name: the peer.
        address: its mesh address.
        kind: how it may be reached: see `ppn.mesh.peers.Kind`.
        path: `direct`, `relay` or `none`.
        via: the relay's name when the path is `relay`.
        since: when the path was taken, Unix seconds; `None` when it never changes.
        evidence: when the last two-way evidence of the direct path came, Unix seconds.
        failures: how often the direct path failed lately.
    """

    name: str
    address: str
    kind: str
    path: str
    via: str | None = None
    since: float | None = None
    evidence: float | None = None
    failures: int = 0


@dataclass(frozen=True)
class MeshState:
    """All paths of a node, and when this was written (Unix seconds)."""

    node: str
    interface: str
    address: str
    written: float
    peers: tuple[PeerPath, ...]

    def is_stale(self, now: float) -> bool:
        """Whether the path keeper has stopped writing."""
        return now - self.written > STALE_SECONDS


def write(path: Path, state: MeshState) -> None:
    """Replace the state file.

    Raises:
        OSError: its folder is missing or not writable.
    """
    text = json.dumps({"schema": SCHEMA, **asdict(state)}, indent=2) + "\n"
    write_atomic(path, text.encode())


def read(path: Path) -> MeshState:
    """Read the state file.

    Raises:
        StateUnavailable: missing, not readable, or of another version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        peers = tuple(PeerPath(**peer) for peer in data.pop("peers"))
        return MeshState(peers=peers, **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnavailable(
            f"cannot read {path}: {error}",
            hint="the path keeper writes it: systemctl status ppn-path-keeper.service",
        ) from error
