"""What a node tells of a VM or of itself to whoever looks for a cause (CLI-03).

Nothing here holds guest memory, disk content or seed content.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from ppn.wire.heartbeat import MANY
from ppn.wire.model import NodeName, VmId, Wire


class FileReport(Wire):
    """A file of a VM's folder: its name and its size on disk in bytes."""

    name: str
    size_bytes: int


class Unread(Wire):
    """Something that could not be looked at, and why."""

    what: str
    code: str
    message: str


class Inspection(Wire):
    """What a VM is made of on its node; parts that are not there are empty.

    Args:
        vm: its id.
        sidecar: what it shall be; without user data, of which only the keys are told.
        user_data_keys: top-level keys of its user data.
        files: of its folder.
        seed: whether its seed volume is one; its content is not told.
        domain_xml: as libvirt has it now, without what libvirt takes for a secret.
        pid: of its QEMU.
        argv: of its QEMU.
        qemu_log: the last lines of what its QEMU said.
        unread: what could not be looked at.
    """

    vm: VmId
    sidecar: dict[str, JsonValue] | None = None
    user_data_keys: Annotated[tuple[str, ...], MANY] = ()
    files: Annotated[tuple[FileReport, ...], MANY] = ()
    seed: Literal["ok", "damaged", "missing"] = "missing"
    domain_xml: str = ""
    pid: int | None = None
    argv: Annotated[tuple[str, ...], MANY] = ()
    qemu_log: Annotated[tuple[str, ...], MANY] = ()
    unread: Annotated[tuple[Unread, ...], MANY] = ()


class ServiceReport(Wire):
    """A unit of systemd: `active`, `failed`, ... and how its last process ended."""

    unit: str
    state: str
    result: str = ""


class CertificateReport(Wire):
    """A certificate of the node; times in RFC 3339.

    Args:
        file: where it is.
        of: whom it names.
        begins: from when it holds.
        ends: until when.
        addresses: what it is good for.
    """

    file: str
    of: str
    begins: str
    ends: str
    addresses: Annotated[tuple[str, ...], MANY] = ()


class PeerReport(Wire):
    """A mesh peer as the node has it.

    Args:
        name: in the inventory.
        address: its mesh address.
        path: `direct`, `relay` or `none`.
        via: the relay's name.
        tunnel: it has a tunnel of its own, and so a handshake.
        handshake_seconds: since the last handshake; None before the first.
        endpoint: where the node reaches it.
    """

    name: str
    address: str
    path: str
    via: str = ""
    tunnel: bool = False
    handshake_seconds: float | None = None
    endpoint: str = ""


class MeshReport(Wire):
    """The node's mesh interface.

    Args:
        interface: its name.
        address: the node's mesh address.
        up: whether WireGuard has it; None when it does not say.
        keeper_seconds: since the path keeper wrote what it knows; None when it has not.
        firewall: whether the pool's rules are loaded; None when nft does not say.
        peers: by name.
    """

    interface: str
    address: str
    up: bool | None
    keeper_seconds: float | None = None
    firewall: bool | None = None
    peers: Annotated[tuple[PeerReport, ...], MANY] = ()


class Examination(Wire):
    """A node beyond its VMs: services, certificates, mesh, versions, clock.

    Args:
        node: its name in the inventory; empty when its files do not say.
        at: its own clock, RFC 3339 in UTC.
        synchronised: whether the kernel takes its clock for right; None when it does not say.
        versions: of the programs that matter, by name.
        services: the pool's units that are installed here.
        certificates: the node's own, and the authorities it trusts.
        mesh: None on a node without a mesh interface of the pool.
        unread: what could not be looked at.
    """

    node: NodeName | Literal[""]
    at: str
    synchronised: bool | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    services: Annotated[tuple[ServiceReport, ...], MANY] = ()
    certificates: Annotated[tuple[CertificateReport, ...], MANY] = ()
    mesh: MeshReport | None = None
    unread: Annotated[tuple[Unread, ...], MANY] = ()
