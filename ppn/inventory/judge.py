"""Judges an inventory whole, and makes the pool of what is sound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Any

from ppn.inventory.nodes import conflicts, node_problems
from ppn.inventory.pool import (
    DEFAULT_INTERFACE,
    DEFAULT_PORT,
    DEFAULT_RANGE,
    KEEPER_PORT,
    VM_BRIDGE,
    Node,
    Pool,
    TenantPeer,
)
from ppn.inventory.read import is_port, read_network
from ppn.inventory.tenants import tenant_peer_problems

INTERFACE = re.compile(r"[a-z][a-z0-9-]{0,14}")


def pool_from_data(
    settings: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]
) -> tuple[Pool, dict[str, list[str]]]:
    """Judge an inventory.

    Args:
        settings: data of the group `all`: `mesh_range`, `mesh_interface`, `mesh_port`,
            `tenant_peers`, `ssh_from`.
        nodes: per node name its host data, in the order of the inventory.

    Returns:
        The pool of the sound nodes, and per name of a bad node all its problems, each naming the
        object, the value and the next step. A bad node is not in the pool; what is wrong with the
        settings or a customer is wrong for every node.
    """
    common = list(_settings_problems(settings))
    if common:
        pool = Pool(IPv4Network(DEFAULT_RANGE), DEFAULT_INTERFACE, DEFAULT_PORT, ())
        return pool, {name: list(common) for name in nodes}
    mesh = IPv4Network(settings.get("mesh_range", DEFAULT_RANGE))
    peers = settings.get("tenant_peers", [])
    # A customer that is left out is cut off, so nothing is changed until all are sound.
    shared = list(tenant_peer_problems(peers, nodes, mesh))
    problems = {name: [*shared, *node_problems(name, data, mesh)] for name, data in nodes.items()}
    for name, texts in conflicts(nodes, mesh).items():
        problems[name] += texts
    pool = Pool(
        mesh,
        settings.get("mesh_interface", DEFAULT_INTERFACE),
        settings.get("mesh_port", DEFAULT_PORT),
        tuple(_node(name, data) for name, data in nodes.items() if not problems[name]),
        () if shared else tuple(_tenant_peer(data) for data in peers),
        _ssh_from(settings),
    )
    return pool, {name: texts for name, texts in problems.items() if texts}


def _settings_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the data that all nodes share."""
    mesh = settings.get("mesh_range", DEFAULT_RANGE)
    network = read_network(mesh)
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
    if not is_port(port) or port == KEEPER_PORT:
        yield (
            f"mesh_port {port!r} is not a free UDP port: use 1 to 65535, but not the path"
            f" keeper's {KEEPER_PORT} (mesh_port_invalid)"
        )
    if settings.get("ssh_from") is not None:
        yield from _ssh_from_problems(settings["ssh_from"])


def _ssh_from_problems(values: object) -> Iterator[str]:
    """What is wrong with the networks that SSH is for."""
    if not isinstance(values, list | tuple):
        yield f"ssh_from is {values!r}: write a list of networks (ssh_from_invalid)"
        return
    for value in values:
        try:
            ip_network(value if isinstance(value, str) else "")
        except ValueError:
            yield (
                f"ssh_from: {value!r} is no network: write it such as '203.0.113.7/32' or"
                " '2001:db8::/64', with no bits set behind the prefix (ssh_from_invalid)"
            )


def _ssh_from(settings: Mapping[str, Any]) -> tuple[IPv4Network | IPv6Network, ...] | None:
    values = settings.get("ssh_from")
    return None if values is None else tuple(ip_network(value) for value in values)


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
        vm_range=read_network(data.get("vm_range")),
    )


def _tenant_peer(data: Mapping[str, Any]) -> TenantPeer:
    """A customer's machine from data that are known to be sound."""
    address = IPv4Address(data["mesh_address"])
    return TenantPeer(data["name"], data["tenant"], address, data["public_key"])
