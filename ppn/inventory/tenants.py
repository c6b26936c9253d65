"""What is wrong with the customers' machines that an inventory declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from ppn.inventory.nodes import address_problems
from ppn.inventory.pool import TENANT_PROXY
from ppn.inventory.read import NAME, read_address
from ppn.mesh.registry import is_key

KEYS = ("name", "tenant", "mesh_address", "public_key")
# As owners of VMs are called; the operator's own are nobody else's.
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
OPERATOR = "operator"
TAKEN = {
    "name": "name_duplicate",
    "mesh_address": "address_duplicate",
    "public_key": "public_key_duplicate",
}


def tenant_peer_problems(
    peers: object, nodes: Mapping[str, Mapping[str, Any]], mesh: IPv4Network
) -> Iterator[str]:
    """Judge the customers' machines: each on its own, with each other, and with the nodes.

    Args:
        peers: the inventory's `tenant_peers`.
        nodes: per node name its host data.
        mesh: the mesh range.

    Returns:
        Every problem, naming the object, the value and the next step.
    """
    if not isinstance(peers, list | tuple):
        yield f"tenant_peers is {peers!r}: write a list of peers (tenant_peers_invalid)"
        return
    sound = [peer for peer in peers if isinstance(peer, Mapping)]
    for peer in peers:
        if isinstance(peer, Mapping):
            yield from _peer_problems(peer, mesh)
        else:
            yield f"tenant peer {peer!r}: write {', '.join(KEYS)} of each (tenant_peer_invalid)"
    yield from _taken_twice(sound, nodes)
    if peers:
        yield from _ways_in(nodes)


def _peer_problems(peer: Mapping[str, Any], mesh: IPv4Network) -> Iterator[str]:
    """What is wrong with one customer's machine on its own."""
    name = peer.get("name")
    owner = f"tenant peer {name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield (
            f"tenant peer {name!r}: name it with letters, digits, '.', '-' and '_'"
            " (tenant_peer_name_invalid)"
        )
    for key in peer:
        if key not in KEYS:
            yield (
                f"{owner} has the unknown key {key!r}: use {', '.join(KEYS)}"
                " (tenant_peer_key_unknown)"
            )
    tenant = peer.get("tenant")
    if not isinstance(tenant, str) or not TENANT.fullmatch(tenant) or tenant == OPERATOR:
        yield (
            f"{owner}: tenant {tenant!r} is no tenant's name: write the one that `ppn tenant"
            " create` was given (tenant_invalid)"
        )
    yield from address_problems(owner, peer.get("mesh_address"), mesh)
    public_key = peer.get("public_key")
    if not isinstance(public_key, str) or not is_key(public_key):
        yield (
            f"{owner}: public_key {public_key!r} is no WireGuard public key: ask the customer for"
            " what `wg pubkey` prints (public_key_invalid)"
        )


def _taken_twice(
    peers: list[Mapping[str, Any]], nodes: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Names, addresses and keys that two have."""
    owners: dict[tuple[str, object], str] = {}
    for name, data in nodes.items():
        owners["name", name] = f"node {name}"
        owners["mesh_address", read_address(data.get("mesh_address"))] = f"node {name}"
    for number, peer in enumerate(peers, start=1):
        owner = f"tenant peer {peer.get('name')} (number {number})"
        values = {
            "name": peer.get("name"),
            "mesh_address": read_address(peer.get("mesh_address")),
            "public_key": peer.get("public_key"),
        }
        for key, value in values.items():
            if not isinstance(value, str | IPv4Address):
                continue
            other = owners.setdefault((key, value), owner)
            if other != owner:
                yield f"{owner}: {key} {value} is that of {other}: give each its own ({TAKEN[key]})"


def _ways_in(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Why customers could reach no tenant proxy, or not each of them."""
    proxies = [name for name, data in nodes.items() if TENANT_PROXY in _roles(data)]
    if not proxies:
        yield (
            f"tenant_peers, but no node has the role {TENANT_PROXY}: give it to one, or take the"
            " peers out (tenant_proxy_missing)"
        )
    if any("relay" in _roles(data) for data in nodes.values()):
        return
    for name in proxies:
        if nodes[name].get("endpoint") is None:
            yield (
                f"node {name} has the role {TENANT_PROXY}, but customers cannot reach it: give it"
                " an endpoint, or add a relay (tenant_proxy_unreachable)"
            )


def _roles(data: Mapping[str, Any]) -> list[object]:
    roles = data.get("roles", [])
    return list(roles) if isinstance(roles, list | tuple) else []
