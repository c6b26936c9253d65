"""The pool as its inventory declares it: nodes, sites, addresses and ranges, judged whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

from ppn.errors import PpnError

KNOWN_ROLES = frozenset({"relay", "hypervisor", "controller"})
DEFAULT_RANGE = "10.8.0.0/24"
DEFAULT_INTERFACE = "ppn0"
DEFAULT_PORT = 51820
# Where path keepers listen, on probe addresses only; WireGuard itself cannot have this port.
KEEPER_PORT = 51821
# Of the pool's own services on mesh addresses: none of them may lead to a guest.
SERVICE_PORTS = frozenset({9180, 9203, 9204, 9221})
# The bridge of a hypervisor's VMs, the same on every node.
VM_BRIDGE = "ppnvm0"
# Probe addresses lie here: see `ppn.mesh.peers`.
PROBE_RANGE = IPv6Network("fd70:706e::/64")
# Five VMs beside the gateway.
SMALLEST_VM_RANGE = 29

NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@._/-]{0,252}")
INTERFACE = re.compile(r"[a-z][a-z0-9-]{0,14}")
ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})")


class NodeUnknown(PpnError):
    """A name that no sound node of the inventory has."""

    code = "node_unknown"


@dataclass(frozen=True)
class Node:
    """A node of the pool.

    Args:
        name: its name in the inventory.
        address: its address in the mesh.
        site: nodes of one site may reach each other without leaving it.
        roles: what it does.
        endpoint: `host:port` where other sites reach its WireGuard port; `None` behind NAT.
        reserved: used for placement only when nothing else has room.
        ranges: further IPv4 networks behind the node.
        site_endpoint: `host:port` where nodes of its own site reach its WireGuard port.
        vm_range: the network of its VMs; they are reached through ports of the node alone.
    """

    name: str
    address: IPv4Address
    site: str
    roles: frozenset[str] = frozenset()
    endpoint: str | None = None
    reserved: bool = False
    ranges: tuple[IPv4Network, ...] = ()
    site_endpoint: str | None = None
    vm_range: IPv4Network | None = None

    @property
    def is_relay(self) -> bool:
        """Whether it forwards between nodes that have no direct path (MESH-05, MESH-07)."""
        return "relay" in self.roles


@dataclass(frozen=True)
class Pool:
    """The sound nodes of an inventory, in its order, and what holds for all of them.

    Args:
        range: the network the mesh addresses are from.
        interface: the WireGuard interface's name on every node.
        port: the UDP port WireGuard listens on.
        nodes: in the order of the inventory.
    """

    range: IPv4Network
    interface: str
    port: int
    nodes: tuple[Node, ...]

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            NodeUnknown: the inventory has no sound node of that name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise NodeUnknown(f"the pool has no node {name!r}", hint=f"its sound nodes are: {known}")


def pool_from_data(
    settings: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]
) -> tuple[Pool, dict[str, list[str]]]:
    """Judge an inventory.

    Args:
        settings: data of the group `all`: `mesh_range`, `mesh_interface`, `mesh_port`.
        nodes: per node name its host data, in the order of the inventory.

    Returns:
        The pool of the sound nodes, and per name of a bad node all its problems, each naming the
        object, the value and the next step. A bad node is not in the pool.
    """
    common = list(_settings_problems(settings))
    if common:
        pool = Pool(IPv4Network(DEFAULT_RANGE), DEFAULT_INTERFACE, DEFAULT_PORT, ())
        return pool, {name: list(common) for name in nodes}
    mesh = IPv4Network(settings.get("mesh_range", DEFAULT_RANGE))
    problems = {name: list(_node_problems(name, data, mesh)) for name, data in nodes.items()}
    for name, texts in _conflicts(nodes, mesh).items():
        problems[name] += texts
    pool = Pool(
        mesh,
        settings.get("mesh_interface", DEFAULT_INTERFACE),
        settings.get("mesh_port", DEFAULT_PORT),
        tuple(_node(name, data) for name, data in nodes.items() if not problems[name]),
    )
    return pool, {name: texts for name, texts in problems.items() if texts}


def _settings_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the data that all nodes share."""
    mesh = settings.get("mesh_range", DEFAULT_RANGE)
    network = _network(mesh)
    if network is None or not 8 <= network.prefixlen <= 30:
        yield (
            f"mesh_range {mesh!r} is not an IPv4 network of /8 to /30: write one such as"
            f" {DEFAULT_RANGE!r} (mesh_range_invalid)"
        )
    interface = settings.get("mesh_interface", DEFAULT_INTERFACE)
    if (
        not isinstance(interface, str)
        or not INTERFACE.fullmatch(interface)
        or interface == VM_BRIDGE
    ):
        yield (
            f"mesh_interface {interface!r} is not a free interface name: use up to 15 lower-case"
            f" letters, digits and hyphens, such as {DEFAULT_INTERFACE!r}, but not {VM_BRIDGE!r}"
            " (mesh_interface_invalid)"
        )
    port = settings.get("mesh_port", DEFAULT_PORT)
    if not _is_port(port) or port == KEEPER_PORT:
        yield (
            f"mesh_port {port!r} is not a free UDP port: use 1 to 65535, but not the path"
            f" keeper's {KEEPER_PORT} (mesh_port_invalid)"
        )


def _node_problems(name: str, data: Mapping[str, Any], mesh: IPv4Network) -> Iterator[str]:
    """What is wrong with one node on its own."""
    if not NAME.fullmatch(name):
        yield f"node {name!r}: use letters, digits, '.', '-' and '_' in its name (name_invalid)"
    roles = data.get("roles", [])
    if not isinstance(roles, list | tuple):
        yield f"node {name}: roles is {roles!r}: write a list of roles (roles_invalid)"
        roles = []
    for role in roles:
        if not isinstance(role, str) or role not in KNOWN_ROLES:
            yield (
                f"node {name} has the unknown role {role!r}: use"
                f" {' or '.join(sorted(KNOWN_ROLES))} (role_unknown)"
            )
    site = data.get("site")
    if not isinstance(site, str) or not site:
        yield f"node {name}: site is {site!r}: name the place it stands in (site_invalid)"
    reserved = data.get("reserved", False)
    if not isinstance(reserved, bool):
        yield f"node {name}: reserved is {reserved!r}: write True or False (reserved_invalid)"
    yield from _address_problems(name, data.get("mesh_address"), mesh)
    yield from _endpoint_problems(name, data)
    if "relay" in roles and data.get("endpoint") is None:
        yield (
            f"node {name} is a relay without an endpoint: say where other sites reach its"
            " WireGuard port, such as 'relay.example.net:51820' (relay_without_endpoint)"
        )
    yield from _range_problems(name, data.get("ranges", []), mesh)
    yield from _vm_range_problems(name, data, mesh)


def _address_problems(name: str, value: object, mesh: IPv4Network) -> Iterator[str]:
    """What is wrong with a node's mesh address on its own."""
    if value is None:
        yield f"node {name} has no mesh_address: give it a free one of {mesh} (address_missing)"
        return
    address = _address(value)
    if address is None:
        yield (
            f"node {name}: mesh_address {value!r} is not an IPv4 address: give it one of {mesh}"
            " (address_invalid)"
        )
    elif address not in mesh or address in (mesh.network_address, mesh.broadcast_address):
        yield (
            f"node {name}: mesh_address {address} is no host address of {mesh}: give it one that"
            " is (address_out_of_range)"
        )


def _endpoint_problems(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the endpoints of a node."""
    for key in ("endpoint", "site_endpoint"):
        value = data.get(key)
        if value is None:
            continue
        match = ENDPOINT.fullmatch(value) if isinstance(value, str) else None
        if match is None or not _is_port(int(match[3])) or not _is_bracketed_right(match[1]):
            yield (
                f"node {name}: {key} {value!r} is not host:port: write it such as"
                " 'relay.example.net:51820' or '[2001:db8::1]:51820' (endpoint_invalid)"
            )


def _range_problems(name: str, values: object, mesh: IPv4Network) -> Iterator[str]:
    """What is wrong with the ranges of a node on their own."""
    if not isinstance(values, list | tuple):
        yield f"node {name}: ranges is {values!r}: write a list of networks (ranges_invalid)"
        return
    for value in values:
        network = _network(value)
        if network is None:
            yield (
                f"node {name}: range {value!r} is not an IPv4 network: write it such as"
                " '192.168.10.0/24', with no bits set behind the prefix (range_invalid)"
            )
        elif network.prefixlen == 0:
            yield (
                f"node {name}: range {network} is everything: name the networks that are behind"
                " the node (range_invalid)"
            )
        elif network.overlaps(mesh):
            yield (
                f"node {name}: range {network} overlaps the mesh's own {mesh}: take it out or"
                " renumber one of the two (range_overlaps)"
            )


def _vm_range_problems(name: str, data: Mapping[str, Any], mesh: IPv4Network) -> Iterator[str]:
    """What is wrong with the network of a node's VMs on its own."""
    value = data.get("vm_range")
    if value is None:
        return
    network = _network(value)
    if network is None or not 8 <= network.prefixlen <= SMALLEST_VM_RANGE:
        yield (
            f"node {name}: vm_range {value!r} is not an IPv4 network of /8 to"
            f" /{SMALLEST_VM_RANGE}: write one such as '10.9.2.0/24' (vm_range_invalid)"
        )
    elif network.overlaps(mesh):
        yield (
            f"node {name}: vm_range {network} overlaps the mesh's own {mesh}: renumber one of the"
            " two (range_overlaps)"
        )
    roles = data.get("roles", [])
    if isinstance(roles, list | tuple) and "hypervisor" not in roles:
        yield (
            f"node {name} has a vm_range but not the role hypervisor: add the role or take the"
            " range out (vm_range_without_hypervisor)"
        )


def _conflicts(nodes: Mapping[str, Mapping[str, Any]], mesh: IPv4Network) -> dict[str, list[str]]:
    """Per node what two nodes cannot both have; each of the two is named."""
    problems: dict[str, list[str]] = {name: [] for name in nodes}
    owners: dict[IPv4Address, list[str]] = {}
    ranges: list[tuple[str, IPv4Network]] = []
    for name, data in nodes.items():
        address = _address(data.get("mesh_address"))
        if address is not None:
            owners.setdefault(address, []).append(name)
        values = data.get("ranges", [])
        found = [_network(value) for value in values] if isinstance(values, list | tuple) else []
        found.append(_network(data.get("vm_range")))
        ranges += [(name, network) for network in found if network is not None]
    for address, names in owners.items():
        for name in names if len(names) > 1 else ():
            problems[name].append(
                f"node {name}: mesh_address {address} is given to {' and '.join(names)}: give each"
                " its own (address_duplicate)"
            )
    for index, (name, network) in enumerate(ranges):
        for other, taken in ranges[index + 1 :]:
            if network.overlaps(taken):
                for one in dict.fromkeys((name, other)):
                    problems[one].append(
                        f"node {one}: range {network} of {name} overlaps {taken} of {other}: keep"
                        " it on one of them (range_overlaps)"
                    )
    for name, data in nodes.items():
        problems[name] += _looping_endpoints(name, data, [(None, mesh), *ranges])
    return problems


def _looping_endpoints(
    name: str, data: Mapping[str, Any], ranges: list[tuple[str | None, IPv4Network]]
) -> Iterator[str]:
    """Endpoints that would be reached through the very tunnel they are the end of."""
    value = data.get("endpoint")
    match = ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    try:
        address = ip_address(match[1].strip("[]")) if match else None
    except ValueError:
        return
    for owner, network in ranges:
        if isinstance(address, IPv4Address) and address in network:
            yield (
                f"node {name}: endpoint {value!r} lies in {network}"
                f"{f' of node {owner}' if owner else ', the mesh itself'}: give the address"
                " outside the mesh; the one inside its site is site_endpoint (endpoint_loops)"
            )


def _node(name: str, data: Mapping[str, Any]) -> Node:
    """A node from data that are known to be sound."""
    return Node(
        name=name,
        address=IPv4Address(data["mesh_address"]),
        site=data["site"],
        roles=frozenset(data.get("roles", [])),
        endpoint=data.get("endpoint"),
        reserved=data.get("reserved", False),
        ranges=tuple(IPv4Network(value) for value in data.get("ranges", [])),
        site_endpoint=data.get("site_endpoint"),
        vm_range=_network(data.get("vm_range")),
    )


def _address(value: object) -> IPv4Address | None:
    """A text as an IPv4 address, or `None` when it is none."""
    try:
        return IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _network(value: object) -> IPv4Network | None:
    """A text as an IPv4 network, or `None` when it is none."""
    try:
        return IPv4Network(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _is_bracketed_right(host: str) -> bool:
    """Whether a host in brackets is an IPv6 address; any other is taken as it is."""
    if not host.startswith("["):
        return True
    try:
        return ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False
