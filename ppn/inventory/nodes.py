"""What is wrong with the nodes of an inventory: each on its own, and with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from ppn.inventory.pool import KNOWN_ROLES, SMALLEST_VM_RANGE
from ppn.inventory.read import NAME, endpoint_host, read_address, read_network


def node_problems(name: str, data: Mapping[str, Any], mesh: IPv4Network) -> Iterator[str]:
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
    yield from address_problems(f"node {name}", data.get("mesh_address"), mesh)
    yield from _endpoint_problems(name, data)
    if "relay" in roles and data.get("endpoint") is None:
        yield (
            f"node {name} is a relay without an endpoint: say where other sites reach its"
            " WireGuard port, such as 'relay.example.net:51820' (relay_without_endpoint)"
        )
    yield from _range_problems(name, data.get("ranges", []), mesh)
    yield from _vm_range_problems(name, data, mesh)


def address_problems(owner: str, value: object, mesh: IPv4Network) -> Iterator[str]:
    """What is wrong with a mesh address on its own; `owner` says whose it is."""
    if value is None:
        yield f"{owner} has no mesh_address: give it a free one of {mesh} (address_missing)"
        return
    address = read_address(value)
    if address is None:
        yield (
            f"{owner}: mesh_address {value!r} is not an IPv4 address: give it one of {mesh}"
            " (address_invalid)"
        )
    elif address not in mesh or address in (mesh.network_address, mesh.broadcast_address):
        yield (
            f"{owner}: mesh_address {address} is no host address of {mesh}: give it one that"
            " is (address_out_of_range)"
        )


def _endpoint_problems(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the endpoints of a node."""
    for key in ("endpoint", "site_endpoint"):
        value = data.get(key)
        if value is None:
            continue
        if endpoint_host(value) is None:
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
        network = read_network(value)
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
    network = read_network(value)
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


def conflicts(nodes: Mapping[str, Mapping[str, Any]], mesh: IPv4Network) -> dict[str, list[str]]:
    """Per node what two nodes cannot both have; each of the two is named."""
    problems: dict[str, list[str]] = {name: [] for name in nodes}
    owners: dict[IPv4Address, list[str]] = {}
    ranges: list[tuple[str, IPv4Network]] = []
    for name, data in nodes.items():
        address = read_address(data.get("mesh_address"))
        if address is not None:
            owners.setdefault(address, []).append(name)
        values = data.get("ranges", [])
        found = (
            [read_network(value) for value in values] if isinstance(values, list | tuple) else []
        )
        found.append(read_network(data.get("vm_range")))
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
    address = read_address(endpoint_host(value))
    for owner, network in ranges:
        if address is not None and address in network:
            yield (
                f"node {name}: endpoint {value!r} lies in {network}"
                f"{f' of node {owner}' if owner else ', the mesh itself'}: give the address"
                " outside the mesh; the one inside its site is site_endpoint (endpoint_loops)"
            )
