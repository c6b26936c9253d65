"""Customers' tunnels, judged by following packets from a customer to each tenant proxy and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.inventory import TENANT_PROXY, Pool, TenantPeer
from ppn.mesh.customers import Door, doors_of
from ppn.mesh.peers import Interface, interface_of
from ppn.mesh.registry import Registry
from ppn.mesh.render import customer_conf, wg_quick
from tests.unit.mesh.pools import (
    LAPTOP,
    RELAY,
    SERVER,
    customer,
    key_of,
    pool,
    pools,
    registry_of,
)
from tests.unit.mesh.test_peers import Directs, chosen, interfaces

PROXY = frozenset({"tenant-proxy"})
ONE = customer("one", 201)
TWO = customer("two", 202, "beta")


def key_for(tables: Mapping[str, tuple[object, ...]], address: IPv4Address) -> str | None:
    """The key that WireGuard's longest prefix gives an address to."""
    networks = [
        (network.prefixlen, key)
        for key, found in tables.items()
        for network in map(ip_network, map(str, found))
        if network.version == 4 and address in network
    ]
    assert len({prefix for prefix, _ in networks}) == len(networks), "one address, one peer"
    return max(networks)[1] if networks else None


def hops(
    mesh: Mapping[str, Interface],
    directs: Directs,
    start: str,
    came: str,
    peer: TenantPeer,
    to: IPv4Address,
) -> list[str]:
    """The nodes a customer's packet passes from its door on; empty if one of them drops it."""
    here, path = mesh[start], [start]
    names = {key_of(name): name for name in mesh}
    while True:
        tables = here.allowed_ips(directs[here.node])
        if key_for(tables, peer.address) != came:
            return []
        if here.address == to:
            return path
        following = names.get(key_for(tables, to) or "")
        if following is None or not here.relays or len(path) > 2:
            return []
        came, here = key_of(here.node), mesh[following]
        path.append(following)


def leads(conf: str) -> dict[str, tuple[str, ...]]:
    """Per public key of a customer's configuration what its tunnel owns."""
    sections = [section.splitlines() for section in conf.split("[Peer]\n")[1:]]
    values = [dict(line.split(" = ") for line in lines if " = " in line) for lines in sections]
    return {one["PublicKey"]: tuple(one["AllowedIPs"].split(", ")) for one in values}


@given(pools(customers=True), st.data())
def test_every_customer_reaches_every_proxy_one_way_and_nothing_else(
    pool: Pool, data: st.DataObject
) -> None:
    """MESH-03: there is one way, WireGuard takes it at each hop, and answers take it back."""
    mesh = interfaces(pool)
    directs = chosen(data, mesh)
    proxies = {node.address for node in pool.nodes if TENANT_PROXY in node.roles}
    doors = doors_of(pool, registry_of(pool))
    names = {key_of(node.name): node.name for node in pool.nodes}
    for peer in pool.tenant_peers:
        tunnels = leads(customer_conf(peer, doors))
        led = [one for owned in tunnels.values() for one in owned]
        assert sorted(led) == sorted(f"{proxy}/32" for proxy in proxies)
        for proxy in proxies:
            door = names[key_for(tunnels, proxy) or ""]
            path = hops(mesh, directs, door, peer.public_key, peer, proxy)
            assert path and mesh[path[-1]].address == proxy
            assert len(path) == (1 if pool.node(path[-1]).endpoint else 2)


@given(pools(customers=True))
def test_doors_know_all_customers_and_other_nodes_none(pool: Pool) -> None:
    doors = doors_of(pool, registry_of(pool))
    for node in pool.nodes:
        interface = interface_of(pool, registry_of(pool), node.name)
        if node.name in {door.name for door in doors}:
            assert (interface.customers, interface.doors) == (pool.tenant_peers, doors)
        else:
            assert (interface.customers, interface.doors) == ((), ())
            assert "customer" not in wg_quick(interface)


def test_a_customers_tunnel_on_the_relay() -> None:
    proxy = replace(RELAY, roles=RELAY.roles | PROXY)
    nodes = pool(proxy, SERVER, customers=(ONE, TWO))
    text = wg_quick(interface_of(nodes, registry_of(nodes), "relay"))
    assert text.endswith(
        f"""
# one, a customer
[Peer]
PublicKey = {key_of("one")}
AllowedIPs = 10.8.0.201/32

# two, a customer
[Peer]
PublicKey = {key_of("two")}
AllowedIPs = 10.8.0.202/32
"""
    )


def test_what_a_customer_is_handed() -> None:
    """MESH-03: it leads to proxies alone, names no other node, and holds no private key."""
    relay = replace(RELAY, roles=RELAY.roles | PROXY)
    nodes = pool(relay, SERVER, replace(LAPTOP, roles=PROXY), customers=(ONE,))
    assert customer_conf(ONE, doors_of(nodes, registry_of(nodes))) == (
        f"""\
# one of acme: the way to the tenant proxies, and nowhere else.
# https://10.8.0.1:9221
# https://10.8.0.3:9221
[Interface]
Address = 10.8.0.201/32
PostUp = wg set %i private-key /etc/wireguard/%i.key

# relay
[Peer]
PublicKey = {key_of("relay")}
AllowedIPs = 10.8.0.1/32, 10.8.0.3/32
Endpoint = 198.51.100.1:51820
PersistentKeepalive = 25
"""
    )


def test_a_proxy_with_an_endpoint_is_a_door_of_its_own_also_without_a_relay() -> None:
    proxy = replace(SERVER, roles=PROXY)
    nodes = pool(proxy, LAPTOP, customers=(ONE,))
    found = Door("server", key_of("server"), "198.51.100.2:51820", (proxy.address,))
    assert doors_of(nodes, registry_of(nodes)) == (found,)
    assert doors_of(nodes, Registry()) == () == doors_of(pool(proxy), registry_of(nodes))


def test_a_customer_with_a_nodes_key_is_refused() -> None:
    nodes = pool(replace(RELAY, roles=PROXY), customers=(replace(ONE, public_key=key_of("relay")),))
    with pytest.raises(Refusal, match="has the WireGuard key of node relay") as refused:
        interface_of(nodes, registry_of(nodes), "relay")
    assert refused.value.code == "key_shared"
