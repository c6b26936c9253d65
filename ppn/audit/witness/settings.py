"""Where a witness is and what it is told, written at onboarding."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

PATH = "/etc/ppn/witness.json"
DEFAULT_PORT = 9222


@dataclass(frozen=True)
class WitnessAt:
    """A witness and where it is.

    Args:
        name: under which it signs: see `checkpoint.witness_name`.
        url: of its service, without a slash at the end.
    """

    name: str
    url: str


class KnownLog(BaseModel):
    """A log that is witnessed.

    Args:
        origin: its name.
        address: where it is kept: the first key that it sends from there is its key for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    address: IPv4Address


class WitnessSettings(BaseModel):
    """What a witness is told by the inventory.

    Args:
        name: under which it signs.
        address: the mesh address it listens on.
        mesh_range: what mesh addresses are from.
        port: the TCP port it listens on.
        logs: what it witnesses.
        callers: mesh addresses of the nodes, which may ask it.
        folder: where it keeps its key and what it signed.
        development: allows a loopback address to listen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: IPv4Address
    mesh_range: IPv4Network
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    logs: tuple[KnownLog, ...] = ()
    callers: tuple[IPv4Address, ...] = ()
    folder: Path = Path("/var/lib/ppn-witness")
    development: bool = False
