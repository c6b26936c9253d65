"""Peers and what each tunnel owns, judged by following packets through the tables of all nodes."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from ppn.inventory import Pool
from ppn.mesh.peers import Interface, Kind, Network, Peer, interface_of
from ppn.mesh.registry import Registry
from tests.unit.mesh.pools import (
    LAPTOP,
    PHONE,
    RELAY,
    SERVER,
    SMALL,
    key_of,
    node,
    pool,
    pools,
    registry_of,
)

CARRIED = ("10.8.0.0/24", "192.168.10.0/24", "fd70:706e::1/128")
Directs = Mapping[str, frozenset[str]]


def interfaces(pool: Pool, registry: Registry | None = None) -> dict[str, Interface]:
    known = registry or registry_of(pool)
    return {one.name: interface_of(pool, known, one.name) for one in pool.nodes}


def owner(
    interface: Interface, direct: frozenset[str], address: IPv4Address | IPv6Address
) -> Peer | None:
    """The peer that WireGuard's longest prefix gives an address to."""
    found: tuple[int, Peer] | None = None
    allowed = interface.allowed_ips(direct)
    for peer in interface.peers:
        for network in allowed.get(peer.public_key, ()):
            if address in network and (found is None or network.prefixlen > found[0]):
                found = network.prefixlen, peer
    return found[1] if found else None


def travels(
    mesh: Mapping[str, Interface], directs: Directs, source: str, to: str, address: IPv4Address
) -> list[str]:
    """The nodes a packet passes, checked at each as WireGuard and the kernel do; empty if lost."""
    sender = mesh[source].address
    path = [source]
    while path[-1] != to:
        here = mesh[path[-1]]
        peer = owner(here, directs[here.node], address)
        if peer is None or (len(path) > 1 and not here.relays) or len(path) > 3:
            return []
        there = mesh[peer.name]
        back = owner(there, directs[there.node], sender)
        if back is None or back.name != here.node:
            return []
        path.append(peer.name)
    return path


def chosen(data: st.DataObject, mesh: Mapping[str, Interface]) -> Directs:
    """For any of the pairs that may, both ends use the direct path."""
    pairs = sorted(
        (one.node, peer.name)
        for one in mesh.values()
        for peer in one.switched
        if one.node < peer.name
    )
    direct = data.draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    return {
        name: frozenset(other for pair in direct if name in pair for other in pair if other != name)
        for name in mesh
    }


@given(pools(relays=True), st.data())
def test_every_pair_is_reachable_and_the_relay_is_last(pool: Pool, data: st.DataObject) -> None:
    """MESH-05, MESH-06: relayed without a direct path, direct with one, ranges included."""
    mesh = interfaces(pool)
    directs = chosen(data, mesh)
    for source, target in combinations(mesh, 2):
        goals = [mesh[target].address, *(network[1] for network in mesh[target].ranges)]
        for goal in goals:
            path = travels(mesh, directs, source, target, goal)
            assert path, f"{source} does not reach {goal} of {target}"
            relayed = not (target in directs[source] or mesh[source].relays or mesh[target].relays)
            assert len(path) == (3 if relayed else 2)
            assert travels(mesh, directs, target, source, mesh[source].address)


@given(pools(relays=False))
def test_without_a_relay_exactly_the_pairs_with_an_endpoint_reach_each_other(pool: Pool) -> None:
    mesh = interfaces(pool)
    none: Directs = {name: frozenset() for name in mesh}
    for source, target in combinations(mesh, 2):
        kind = next(peer.kind for peer in mesh[source].peers if peer.name == target)
        assert kind in (Kind.STATIC, Kind.UNREACHABLE)
        path = travels(mesh, none, source, target, mesh[target].address)
        assert path == ([source, target] if kind is Kind.STATIC else [])


@given(pools(), st.data())
def test_no_network_belongs_to_two_tunnels_and_the_probe_address_never_moves(
    pool: Pool, data: st.DataObject
) -> None:
    """MESH-04: a table is a function of prefixes."""
    mesh = interfaces(pool)
    directs = chosen(data, mesh)
    for one in mesh.values():
        allowed = one.allowed_ips(directs[one.node])
        networks = [network for owned in allowed.values() for network in owned]
        assert len(networks) == len(set(networks))
        for peer in one.peers:
            assert (IPv6Network(peer.probe) in allowed.get(peer.public_key, ())) is peer.has_tunnel


@given(pools(), st.data())
def test_tunnels_and_kinds_are_symmetric(pool: Pool, data: st.DataObject) -> None:
    mesh = interfaces(pool)
    for one in mesh.values():
        for peer in one.peers:
            back = next(other for other in mesh[peer.name].peers if other.name == one.node)
            assert back.kind is peer.kind
            if peer.has_tunnel:
                assert peer.endpoint or back.endpoint
                assert peer.keepalive is (back.endpoint is None)


@given(pools(), st.data())
def test_unregistered_nodes_are_nobodys_peers(pool: Pool, data: st.DataObject) -> None:
    """MESH-04: only nodes whose key is recorded are peers."""
    known = data.draw(st.sets(st.sampled_from([one.name for one in pool.nodes])))
    registry = Registry({name: key_of(name) for name in known})
    for one in pool.nodes:
        interface = interface_of(pool, registry, one.name)
        assert {peer.name for peer in interface.peers} == known - {one.name}


@given(pools(), st.data())
def test_same_pool_same_interface_and_live_state_reads_back(
    pool: Pool, data: st.DataObject
) -> None:
    mesh = interfaces(pool)
    assert mesh == interfaces(pool)
    directs = chosen(data, mesh)
    for one in mesh.values():
        live: dict[str, frozenset[Network]] = {
            key: frozenset(owned) for key, owned in one.allowed_ips(directs[one.node]).items()
        }
        assert one.direct_in(live) == directs[one.node]


def owned(interface: Interface, *direct: str) -> dict[str, tuple[str, ...]]:
    allowed = interface.allowed_ips(frozenset(direct))
    names = {peer.public_key: peer.name for peer in interface.peers}
    return {names[key]: tuple(map(str, networks)) for key, networks in allowed.items()}


def test_a_node_behind_nat() -> None:
    interface = interface_of(SMALL, registry_of(SMALL), "laptop")
    assert owned(interface) == {"relay": CARRIED, "server": ("fd70:706e::2/128",)}
    assert owned(interface, "server") == {
        "relay": ("10.8.0.0/24", "fd70:706e::1/128"),
        "server": ("10.8.0.2/32", "192.168.10.0/24", "fd70:706e::2/128"),
    }
    assert [(peer.name, peer.kind) for peer in interface.peers] == [
        ("relay", Kind.STATIC),
        ("server", Kind.SWITCHED),
        ("phone", Kind.RELAYED),
    ]
    assert all(peer.keepalive for peer in interface.peers if peer.endpoint)


def test_the_relay_owns_each_node_directly() -> None:
    assert owned(interface_of(SMALL, registry_of(SMALL), "relay")) == {
        "server": ("10.8.0.2/32", "192.168.10.0/24", "fd70:706e::2/128"),
        "laptop": ("10.8.0.3/32", "fd70:706e::3/128"),
        "phone": ("10.8.0.4/32", "fd70:706e::4/128"),
    }


def test_the_first_relay_carries_and_the_second_is_one_address() -> None:
    second = node("relay2", 9, "cloud", ("relay",), "198.51.100.9:51820", ("172.16.0.0/24",))
    both = pool(RELAY, second, SERVER, LAPTOP)
    mesh = interfaces(both)
    assert owned(mesh["laptop"])["relay2"] == ("10.8.0.9/32", "172.16.0.0/24", "fd70:706e::9/128")
    assert "10.8.0.0/24" in owned(mesh["laptop"])["relay"]
    assert owned(mesh["relay2"])["relay"] == ("10.8.0.1/32", "fd70:706e::1/128")


def test_nodes_of_one_site_use_the_endpoint_inside_it() -> None:
    one = node("one", 2, "a", endpoint="198.51.100.2:51820", site_endpoint="192.168.1.2:51820")
    two = node("two", 3, "a")
    far = node("far", 4, "b")
    mesh = interfaces(pool(RELAY, one, two, far))
    assert [peer.endpoint for peer in mesh["two"].peers if peer.name == "one"] == [
        "192.168.1.2:51820"
    ]
    assert [peer.endpoint for peer in mesh["far"].peers if peer.name == "one"] == [
        "198.51.100.2:51820"
    ]


def test_a_pool_of_one_node_has_an_interface_without_peers() -> None:
    interface = interface_of(pool(LAPTOP), Registry(), "laptop")
    assert interface.peers == ()
    assert interface.carrier is None


def test_nodes_that_cannot_reach_each_other_say_so() -> None:
    mesh = interfaces(pool(LAPTOP, PHONE, SERVER))
    assert [peer.kind for peer in mesh["laptop"].peers] == [Kind.UNREACHABLE, Kind.STATIC]
