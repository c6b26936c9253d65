"""Site settings: which machine becomes which node, on which disk, and whom it trusts.

Operators write and sign them (`ppn iso config`); the installer takes nothing from anywhere else.
They hold no secret: every private key of a node is made on the node.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Annotated, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ppn.errors import Refusal
from ppn.inventory.pool import DEFAULT_INTERFACE, DEFAULT_PORT, DEFAULT_RANGE, KEEPER_PORT
from ppn.inventory.read import endpoint_host
from ppn.mesh.registry import is_key
from ppn.wire.model import Wire

MOST_BYTES = 256 * 1024
MOST_NODES = 1000
# What the partitions need at the least, and some room for VMs.
LEAST_DISK_GIB = 8
# Of a host name: it is shown by prompts and sent to DHCP servers.
HOST_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
SSH_KEY = re.compile(
    r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)"
    r" [A-Za-z0-9+/]{40,2000}={0,2}( [ -~]{0,200})?"
)


class SettingsMalformed(Refusal):
    """Site settings that are not what this version understands; names every field at fault."""


def _public_key(text: str) -> str:
    if not is_key(text):
        raise ValueError("no WireGuard public key: it has 44 characters, as `wg pubkey` prints it")
    return text


def _endpoint(text: str) -> str:
    if endpoint_host(text) is None:
        raise ValueError("not host:port, such as relay.example.net:51820")
    return text


def _ssh_key(text: str) -> str:
    if not SSH_KEY.fullmatch(text):
        raise ValueError("not one line of an SSH public key, as a file *.pub holds it")
    try:
        load_ssh_public_key(text.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        # sshd would take nobody's certificate, and nobody could log in to mend it.
        raise ValueError(f"no whole SSH public key: {error}") from error
    return text


def _unscoped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    # Python takes anything for a zone, line ends too, and this goes into a file of lines.
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("an address with a zone (%), which is none of a site's")
    return address


def _with_length(text: object) -> object:
    if isinstance(text, str) and "/" not in text:
        raise ValueError("an address without the length of its network's prefix, such as /24")
    return text


Address = Annotated[IPv4Address | IPv6Address, AfterValidator(_unscoped)]
OwnAddress = Annotated[
    IPv4Interface | IPv6Interface, BeforeValidator(_with_length), AfterValidator(_unscoped)
]
Mac = Annotated[str, Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
# It stands in messages on the console, where other characters could write anything.
Text = Annotated[str, Field(pattern=r"^[ -~]{1,128}$")]
# What the installer itself says of the root; two would not agree.
OWN_OPTIONS = {"boot", "init", "initrd", "rdinit", "ro", "root", "rootflags", "rootfstype", "rw"}


def _kernel_option(text: str) -> str:
    if text.partition("=")[0] in OWN_OPTIONS:
        raise ValueError("where the root is, and what starts there, is the installer's to say")
    return text


KernelOption = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*(=[A-Za-z0-9.,:;/+@_%-]*)?$", max_length=128),
    AfterValidator(_kernel_option),
]


class Match(Wire):
    """How a machine is known to be a node; one thing that fits is enough.

    Args:
        macs: hardware addresses of its network interfaces, lower case.
        serial: its serial number, as its firmware tells it.
        uuid: its UUID, as its firmware tells it, lower case.
        default: any machine that no other node fits; at most one node may say so.
    """

    macs: Annotated[tuple[Mac, ...], Field(max_length=32)] = ()
    serial: Text | None = None
    uuid: Uuid | None = None
    default: bool = False

    @model_validator(mode="after")
    def _something(self) -> Match:
        if not (self.macs or self.serial or self.uuid or self.default):
            raise ValueError("name macs, a serial, a uuid, or say default")
        return self


class Link(Wire):
    """One network interface of a node.

    Args:
        mac: its hardware address; or
        name: its name, with `*` and `?`, such as `en*`.
        addresses: its own addresses with prefix lengths; none for DHCP.
        gateway: where packets for elsewhere go, with addresses only.
        dns: name servers; DHCP's own when there are none.
    """

    mac: Mac | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9*?._-]{1,15}$")] | None = None
    addresses: Annotated[tuple[OwnAddress, ...], Field(max_length=16)] = ()
    gateway: Address | None = None
    dns: Annotated[tuple[Address, ...], Field(max_length=4)] = ()

    @model_validator(mode="after")
    def _whole(self) -> Link:
        if (self.mac is None) == (self.name is None):
            raise ValueError("say which interface: by mac or by name, one of the two")
        if self.gateway is not None:
            networks = [one.network for one in self.addresses]
            if not any(self.gateway in network for network in networks):
                raise ValueError("the gateway lies in the network of none of the addresses")
        return self


class Disk(Wire):
    """Which disk may be taken; every pattern that is given must fit.

    Args:
        min_gib: smaller disks are not meant.
        max_gib: larger disks are not meant; no limit when not given.
        serials: patterns of serial numbers, with `*` and `?`; one must fit. Any when empty.
        models: the same for models.
        disks: how many disks are to be meant by all this: one, for nothing else is understood yet.
        reinstall: whether a node's disk that another image or other settings have installed is
            installed anew, with all that is on it; or never.
    """

    min_gib: Annotated[int, Field(ge=LEAST_DISK_GIB, le=1_000_000)] = LEAST_DISK_GIB
    max_gib: Annotated[int | None, Field(ge=LEAST_DISK_GIB, le=1_000_000)] = None
    serials: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    models: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    disks: Literal[1] = 1
    reinstall: Literal["allowed", "never"] = "allowed"

    @model_validator(mode="after")
    def _possible(self) -> Disk:
        if self.max_gib is not None and self.max_gib < self.min_gib:
            raise ValueError("max_gib is less than min_gib: no disk fits")
        return self


class Node(Wire):
    """One node of the site.

    Args:
        name: its host name, and its name in the inventory.
        match: how its machine is known.
        mesh_address: its address in the mesh; needed when there is a relay.
        network: its interfaces; DHCP on every wired one when there are none.
        disk: which disk it takes; the site's when not given.
        kernel_options: added to the command line of its kernel, such as `console=ttyS1,115200`.
    """

    name: Annotated[str, Field(pattern=HOST_NAME)]
    match: Match
    mesh_address: IPv4Address | None = None
    network: Annotated[tuple[Link, ...], Field(max_length=32)] = ()
    disk: Disk | None = None
    kernel_options: Annotated[tuple[KernelOption, ...], Field(max_length=32)] = ()


class Relay(Wire):
    """The first peer of a new node: over it the operator reaches a node behind NAT.

    Args:
        name: its name in the inventory.
        public_key: its WireGuard public key.
        endpoint: `host:port` of its WireGuard port.
        mesh_address: its address in the mesh.
    """

    name: Annotated[str, Field(pattern=HOST_NAME)] = "relay"
    public_key: Annotated[str, AfterValidator(_public_key)]
    endpoint: Annotated[str, AfterValidator(_endpoint), Field(max_length=260)]
    mesh_address: IPv4Address


class Mesh(Wire):
    """The mesh as the inventory has it.

    Args:
        range: all its addresses.
        interface: its name on every node.
        port: WireGuard's UDP port.
        relay: the first peer; without one a node waits for its operator's run.
    """

    range: IPv4Network = IPv4Network(DEFAULT_RANGE)
    interface: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,14}$")] = DEFAULT_INTERFACE
    port: Annotated[int, Field(ge=1, le=65535)] = DEFAULT_PORT
    relay: Relay | None = None

    @model_validator(mode="after")
    def _sound(self) -> Mesh:
        if not 8 <= self.range.prefixlen <= 30:
            raise ValueError("the range is no network of /8 to /30")
        if self.port == KEEPER_PORT:
            raise ValueError(f"port {KEEPER_PORT} is the path keeper's")
        if self.relay is not None and not _is_host(self.relay.mesh_address, self.range):
            raise ValueError("the relay's mesh_address is no host address of the range")
        return self


class Site(Wire):
    """All settings of a site; the same for every node that the image makes there.

    Args:
        version: of this form.
        nodes: the nodes it may make.
        ssh_ca_keys: public keys of the operator's SSH certificate authorities: who holds a
            certificate of one of them may log in. Nothing else lets anybody in.
        mesh: the pool's mesh.
        disk: which disk a node takes that says nothing itself.
    """

    version: Literal[1]
    nodes: tuple[Node, ...] = Field(min_length=1, max_length=MOST_NODES)
    ssh_ca_keys: tuple[Annotated[str, AfterValidator(_ssh_key)], ...] = Field(
        min_length=1, max_length=16
    )
    mesh: Mesh = Mesh()
    disk: Disk = Disk()

    @model_validator(mode="after")
    def _consistent(self) -> Site:
        for what, values in (
            ("name", [node.name for node in self.nodes]),
            ("mesh_address", [node.mesh_address for node in self.nodes]),
            ("mac", [mac for node in self.nodes for mac in node.match.macs]),
            ("serial", [node.match.serial for node in self.nodes]),
            ("uuid", [node.match.uuid for node in self.nodes]),
            ("default", [node.match.default or None for node in self.nodes]),
        ):
            given = [value for value in values if value is not None]
            twice = {str(value) for value in given if given.count(value) > 1}
            if twice:
                raise ValueError(f"{what} stands at more than one node: {', '.join(sorted(twice))}")
        for node in self.nodes:
            self._check_mesh(node)
        return self

    def _check_mesh(self, node: Node) -> None:
        relay = self.mesh.relay
        if relay is not None and node.mesh_address is None:
            raise ValueError(f"node {node.name} needs a mesh_address, for there is a relay")
        if relay is not None and relay.mesh_address == node.mesh_address:
            raise ValueError(f"node {node.name} has the relay's mesh_address")
        if node.mesh_address is not None and not _is_host(node.mesh_address, self.mesh.range):
            raise ValueError(f"node {node.name}: mesh_address is no host address of the range")


class NodeSettings(Wire):
    """What one node is made from: its own part of the site's settings, and what all share."""

    node: Node
    ssh_ca_keys: tuple[str, ...]
    mesh: Mesh
    disk: Disk

    def digest(self) -> str:
        """SHA-256, in hex, of all that decides what this node becomes, and of nothing else."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Machine(Wire):
    """What a machine is known by.

    Args:
        macs: hardware addresses of its network interfaces.
        serial: as its firmware tells it; empty when it does not.
        uuid: as its firmware tells it; empty when it does not.
    """

    macs: tuple[str, ...] = ()
    serial: str = ""
    uuid: str = ""


def parse(content: bytes) -> Site:
    """Site settings from the bytes of `site.json`.

    Args:
        content: the whole file.

    Raises:
        SettingsMalformed: too long, not ASCII, no JSON, or a field that is not sound.
    """
    if len(content) > MOST_BYTES:
        raise _malformed(f"longer than {MOST_BYTES} bytes")
    if not content.isascii():
        raise _malformed("not plain ASCII; JSON writes other characters as \\u....")
    try:
        return Site.model_validate_json(content)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise _malformed("; ".join(found[:20])) from error


def node_of(site: Site, machine: Machine) -> NodeSettings:
    """The settings of the node that a machine is to become.

    Args:
        site: the site's settings.
        machine: what the machine is known by.

    Raises:
        Refusal: no node fits (`machine_unknown`), or several do (`machine_ambiguous`).
    """
    known = [node for node in site.nodes if _fits(node.match, machine)]
    found = known or [node for node in site.nodes if node.match.default]
    seen = f"serial {machine.serial or '-'}, UUID {machine.uuid or '-'}, MAC " + (
        " ".join(machine.macs) or "-"
    )
    if not found:
        raise Refusal(
            f"no node of the site settings is this machine: {seen}",
            code="machine_unknown",
            constraint="match of the nodes",
            hint="add a node that matches one of these, or one with `default`, and sign them again",
        )
    if len(found) > 1:
        raise Refusal(
            f"this machine is {' and '.join(node.name for node in found)} at once: {seen}",
            code="machine_ambiguous",
            constraint="match of the nodes",
            hint="let what they match by be one machine's, and sign the settings again",
        )
    (node,) = found
    disk = node.disk or site.disk
    return NodeSettings(node=node, ssh_ca_keys=site.ssh_ca_keys, mesh=site.mesh, disk=disk)


def _fits(match: Match, machine: Machine) -> bool:
    return (
        bool(set(match.macs) & set(machine.macs))
        or (match.serial is not None and match.serial == machine.serial)
        or (match.uuid is not None and match.uuid == machine.uuid)
    )


def _is_host(address: IPv4Address, network: IPv4Network) -> bool:
    return address in network and address not in (
        network.network_address,
        network.broadcast_address,
    )


def _malformed(what: str) -> SettingsMalformed:
    return SettingsMalformed(
        f"the site settings are not sound: {what}",
        code="settings_malformed",
        constraint="form of site.json",
        hint="make them with `ppn iso config`, which checks them before it signs",
    )
