"""The node proxy's settings, put on the node by the pool's deploy."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ppn.pool.tls import NODE_CERTIFICATE, NODE_TRUST, TlsFiles
from ppn.settings import read_own
from ppn.wire.listen import check_mesh_address
from ppn.wire.model import NodeName, Wire

PORT = 9204
PATH = "/etc/ppn/proxy.json"
AGENT_SOCKET = "/run/ppn/agent.sock"

# JSON has text and arrays where these have addresses and tuples.
Address = Annotated[IPv4Address, Field(strict=False)]
Network = Annotated[IPv4Network, Field(strict=False)]


class Limits(Wire):
    """How much and how long; seconds, bytes and counts.

    Args:
        change_seconds: for the agent to answer a change, a spawn with its boot among them.
        question_seconds: for the agent to answer a question.
        handshake_seconds: for a caller to show its certificate.
        header_seconds: for a request's header to arrive, from its first byte.
        body_seconds: for a request's body to arrive, and for a caller to take an answer.
        idle_seconds: a connection may wait for its next request.
        body_bytes: the longest body.
        connections: at once, from all callers.
        connections_of_one: at once, from one address.
        changes: with the agent at once.
        questions: with the agent at once.
    """

    change_seconds: float = Field(default=300.0, gt=0, le=3600)
    question_seconds: float = Field(default=10.0, gt=0, le=3600)
    handshake_seconds: float = Field(default=5.0, gt=0, le=60)
    header_seconds: float = Field(default=5.0, gt=0, le=60)
    body_seconds: float = Field(default=10.0, gt=0, le=60)
    idle_seconds: int = Field(default=75, ge=1, le=3600)
    body_bytes: int = Field(default=1024 * 1024, ge=1, le=2 * 1024 * 1024)
    connections: int = Field(default=256, ge=1, le=4096)
    connections_of_one: int = Field(default=64, ge=1, le=4096)
    changes: int = Field(default=32, ge=1, le=1024)
    questions: int = Field(default=32, ge=1, le=1024)


class ProxySettings(Wire):
    """Where the proxy listens, whom it lets near, and what it speaks TLS with.

    Args:
        node: its name in the inventory.
        listen: its mesh address.
        port: TCP.
        mesh_range: what mesh addresses are from; `listen` is one of them.
        allowed: addresses and networks that may connect at all (NP-02).
        certificate: a PEM file, read anew when it changes.
        trust: PEM file of the authorities, read anew when it changes.
        agent_socket: the host agent's.
        development: allows a loopback address to listen on.
        limits: bounds and time-outs.
    """

    node: NodeName
    listen: Address
    port: int = Field(default=PORT, ge=0, le=65535)
    mesh_range: Network
    allowed: Annotated[tuple[Network, ...], Field(strict=False, max_length=4096)]
    certificate: str = NODE_CERTIFICATE
    trust: str = NODE_TRUST
    agent_socket: str = AGENT_SOCKET
    development: bool = False
    limits: Limits = Limits()

    def tls(self, key: Path) -> TlsFiles:
        """What to speak TLS with.

        Args:
            key: the private key, a credential of the service.
        """
        return TlsFiles(key, Path(self.certificate), Path(self.trust))


def read_settings(path: Path) -> ProxySettings:
    """The proxy's settings, with an address it may listen on.

    Raises:
        SettingsDamaged: missing, or no valid settings.
        AddressNotMesh: an address that is not the mesh's.
    """
    settings = read_own(path, ProxySettings)
    check_mesh_address(settings.listen, settings.mesh_range, development=settings.development)
    return settings
