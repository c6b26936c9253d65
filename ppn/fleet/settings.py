"""A fleet controller's settings, written at onboarding."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ppn.pool.tls import NODE_CERTIFICATE, NODE_TRUST

PATH = "/etc/ppn/fleet.json"
DEFAULT_PORT = 9203
NODE_PROXY_PORT = 9204
STALE_SECONDS = 30.0


class KnownNode(BaseModel):
    """A hypervisor of the inventory: heartbeats in its name come from its address alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: IPv4Address


class FleetSettings(BaseModel):
    """What a controller is told by the inventory.

    Args:
        name: the node it runs on.
        address: the mesh address it listens on.
        mesh_range: what mesh addresses are from.
        port: the TCP port it listens on.
        nodes: every hypervisor of the pool.
        callers: mesh addresses that may use the API; the nodes' own may only send heartbeats.
        controllers: addresses of the other controllers.
        node_proxy_port: the port of every node's proxy.
        journal: where intents are kept.
        certificate: its client certificate.
        trust: the authorities whose node proxies it trusts.
        stale_seconds: after so long without a heartbeat a node is no candidate.
        request_seconds: the longest a caller waits for an answer.
        stall_seconds: a move that comes no further for so long is called back.
        development: allows a loopback address to listen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: IPv4Address
    mesh_range: IPv4Network
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    nodes: Annotated[tuple[KnownNode, ...], Field(max_length=65536)]
    callers: tuple[IPv4Address, ...] = ()
    controllers: tuple[IPv4Address, ...] = ()
    node_proxy_port: int = Field(default=NODE_PROXY_PORT, ge=1, le=65535)
    journal: Path = Path("/var/lib/ppn-fleet/intents.jsonl")
    certificate: Path = Path(NODE_CERTIFICATE)
    trust: Path = Path(NODE_TRUST)
    stale_seconds: float = Field(default=STALE_SECONDS, gt=0, le=600)
    request_seconds: float = Field(default=120.0, gt=0, le=600)
    stall_seconds: float = Field(default=120.0, gt=0, le=86400)
    development: bool = False
