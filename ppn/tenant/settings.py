"""A tenant proxy's settings, written at onboarding; `ppn tenant` on its node reads them too."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppn.audit.witness.settings import WitnessAt
from ppn.pool.tls import NODE_CERTIFICATE, NODE_TRUST

PATH = "/etc/ppn/tenant.json"
DEFAULT_PORT = 9221
FLEET_PORT = 9203
DEFAULT_STORE = "sqlite:////var/lib/ppn-tenant/tenants.db"


class Limits(BaseModel):
    """How much one tenant may ask of one proxy.

    Args:
        rate: requests a second, in the long run.
        burst: requests at once, after a while without any.
        source_rate: requests a second from one address, whoever asks, tokens that are not good
            among them; twice as many at once.
        changes: under way at the same time.
        questions: under way at the same time.
        waiting: more of either kind, that wait for their turn.
        wait_seconds: the longest one waits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(default=50.0, gt=0, le=100000)
    burst: int = Field(default=200, ge=1, le=100000)
    source_rate: float = Field(default=200.0, gt=0, le=100000)
    changes: int = Field(default=16, ge=1, le=1024)
    questions: int = Field(default=16, ge=1, le=1024)
    waiting: int = Field(default=256, ge=0, le=4096)
    wait_seconds: float = Field(default=30.0, gt=0, le=600)


class PeerOf(BaseModel):
    """A customer's machine: tokens of its tenant are good from its address, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: IPv4Address
    tenant: str


class TenantSettings(BaseModel):
    """What a tenant proxy is told by the inventory.

    Args:
        name: the node it runs on.
        address: the mesh address it listens on, and asks from.
        mesh_range: what mesh addresses are from.
        port: the TCP port it listens on.
        controllers: mesh addresses of every fleet controller.
        controller_port: theirs.
        nodes: mesh addresses of the pool's nodes, from which every token is good.
        peers: the customers' machines.
        store: URL of the tenant store; all proxies of a pool have the same.
        audit: the folder of its audit log.
        certificate: its server certificate.
        audit_key: the private key that signs the audit log; made with the log.
        witnesses: who is sent the audit log's checkpoints.
        trust: the authorities of the pool; a change of it is taken over with the certificate.
        request_seconds: the longest a change waits for the pool; longer than a controller does.
        lease_seconds: the longest a request goes on, whoever waits; then the sweeper looks.
        sweep_seconds: between two looks of the sweeper.
        limits: how much one tenant may ask for.
        development: allows a loopback address to listen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: IPv4Address
    mesh_range: IPv4Network
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    controllers: Annotated[tuple[IPv4Address, ...], Field(min_length=1, max_length=64)]
    controller_port: int = Field(default=FLEET_PORT, ge=1, le=65535)
    nodes: Annotated[tuple[IPv4Address, ...], Field(max_length=65536)] = ()
    peers: Annotated[tuple[PeerOf, ...], Field(max_length=65536)] = ()
    store: str = DEFAULT_STORE
    audit: Path = Path("/var/lib/ppn-tenant/audit")
    audit_key: Path = Path("/var/lib/ppn-tenant/audit.key")
    witnesses: Annotated[tuple[WitnessAt, ...], Field(max_length=64)] = ()
    certificate: Path = Path(NODE_CERTIFICATE)
    trust: Path = Path(NODE_TRUST)
    request_seconds: float = Field(default=150.0, gt=0, le=600)
    lease_seconds: float = Field(default=300.0, gt=0, le=3600)
    sweep_seconds: float = Field(default=10.0, gt=0, le=600)
    limits: Limits = Limits()
    development: bool = False

    @property
    def fleet(self) -> tuple[str, ...]:
        """The base URLs of the controllers."""
        return tuple(f"http://{one}:{self.controller_port}" for one in self.controllers)

    @model_validator(mode="after")
    def _check_lease(self) -> TenantSettings:
        # What is left is for the store, the audit log and a busy machine.
        if self.lease_seconds < 2 * self.request_seconds:
            raise ValueError(
                "lease_seconds is less than twice request_seconds: the sweeper would look at what a"
                " request is still at"
            )
        return self
