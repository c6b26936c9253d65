"""The inventory is judged whole: every problem is named, and only a bad node is left out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.host.spec import OWNER_PATTERN
from ppn.inventory import NodeUnknown, TenantPeer, pool_from_data
from ppn.inventory.tenants import TENANT
from tests.unit.mesh.pools import key_of

RELAY: dict[str, Any] = {
    "roles": ["relay"],
    "site": "cloud",
    "mesh_address": "10.8.0.1",
    "endpoint": "relay.example.net:51820",
}
SERVER: dict[str, Any] = {"site": "a", "mesh_address": "10.8.0.2", "roles": ["hypervisor"]}
LAPTOP: dict[str, Any] = {"site": "b", "mesh_address": "10.8.0.3", "reserved": True}


def problems(**nodes: dict[str, Any]) -> dict[str, list[str]]:
    return pool_from_data({}, nodes)[1]


def codes(texts: list[str]) -> list[str]:
    return [text.rsplit("(", 1)[1].rstrip(")") for text in texts]


def test_sound_inventory_keeps_its_order_and_profiles() -> None:
    """MESH-08: cloud and physical nodes are in one pool and stay told apart."""
    pool, found = pool_from_data({}, {"relay": RELAY, "server": SERVER, "laptop": LAPTOP})
    assert found == {}
    assert [node.name for node in pool.nodes] == ["relay", "server", "laptop"]
    assert pool.range == IPv4Network("10.8.0.0/24")
    assert pool.node("relay").is_relay
    assert pool.node("server").roles == {"hypervisor"}
    assert pool.node("laptop").reserved
    assert pool.node("laptop").address == IPv4Address("10.8.0.3")


def test_a_relay_need_not_be_a_hypervisor() -> None:
    """MESH-07: relaying is a role of its own."""
    pool, _ = pool_from_data({}, {"relay": RELAY})
    assert "hypervisor" not in pool.node("relay").roles


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"roles": ["router"]}, "role_unknown"),
        ({"roles": "relay"}, "roles_invalid"),
        ({"site": None}, "site_invalid"),
        ({"reserved": "yes"}, "reserved_invalid"),
        ({"mesh_address": None}, "address_missing"),
        ({"mesh_address": "10.8.0"}, "address_invalid"),
        ({"mesh_address": "10.9.0.1"}, "address_out_of_range"),
        ({"mesh_address": "10.8.0.255"}, "address_out_of_range"),
        ({"endpoint": "relay.example.net"}, "endpoint_invalid"),
        ({"endpoint": "relay.example.net:0"}, "endpoint_invalid"),
        ({"endpoint": "[relay]:51820"}, "endpoint_invalid"),
        ({"endpoint": "a\nPostUp = x:1"}, "endpoint_invalid"),
        ({"site_endpoint": 51820}, "endpoint_invalid"),
        ({"endpoint": "10.8.0.9:51820"}, "endpoint_loops"),
        ({"roles": ["relay"]}, "relay_without_endpoint"),
        ({"ranges": "192.168.1.0/24"}, "ranges_invalid"),
        ({"ranges": ["192.168.1.1/24"]}, "range_invalid"),
        ({"ranges": ["0.0.0.0/0"]}, "range_invalid"),
        ({"ranges": ["fd00::/64"]}, "range_invalid"),
        ({"ranges": ["10.8.0.128/25"]}, "range_overlaps"),
        ({"ranges": ["192.168.0.0/16", "192.168.1.0/24"]}, "range_overlaps"),
        ({"roles": ["hypervisor"], "vm_range": "10.9.2.1/24"}, "vm_range_invalid"),
        ({"roles": ["hypervisor"], "vm_range": "10.9.2.0/30"}, "vm_range_invalid"),
        ({"roles": ["hypervisor"], "vm_range": 24}, "vm_range_invalid"),
        ({"roles": ["hypervisor"], "vm_range": "10.8.0.0/16"}, "range_overlaps"),
        ({"roles": [], "vm_range": "10.9.2.0/24"}, "vm_range_without_hypervisor"),
    ],
)
def test_one_problem_of_one_node(change: dict[str, Any], code: str) -> None:
    found = problems(relay=RELAY, server=SERVER | change, laptop=LAPTOP)
    assert list(found) == ["server"]
    assert codes(found["server"]) == [code]
    assert found["server"][0].startswith("node server")


def test_all_problems_of_a_node_are_named_at_once() -> None:
    found = problems(server={"roles": ["router"], "endpoint": "x"})
    assert codes(found["server"]) == [
        "role_unknown",
        "site_invalid",
        "address_missing",
        "endpoint_invalid",
    ]


def test_two_nodes_with_one_address_are_both_refused_and_the_others_go_on() -> None:
    pool, found = pool_from_data(
        {}, {"relay": RELAY, "server": SERVER, "laptop": LAPTOP | {"mesh_address": "10.8.0.2"}}
    )
    assert [node.name for node in pool.nodes] == ["relay"]
    assert codes(found["server"]) == codes(found["laptop"]) == ["address_duplicate"]
    assert "server and laptop" in found["server"][0]


def test_a_vm_range_is_one_nodes_alone() -> None:
    """IP-01: no address is given twice in a pool, nor is it one behind another node."""
    guests = {"roles": ["hypervisor"], "vm_range": "10.9.2.0/24"}
    pool, none = pool_from_data({}, {"server": SERVER | guests})
    assert none == {} and str(pool.node("server").vm_range) == "10.9.2.0/24"
    for other in (guests, {"ranges": ["10.9.0.0/16"]}):
        found = problems(relay=RELAY, server=SERVER | guests, laptop=LAPTOP | other)
        assert codes(found["server"]) == codes(found["laptop"]) == ["range_overlaps"]


def test_overlapping_ranges_of_two_nodes() -> None:
    found = problems(
        server=SERVER | {"ranges": ["192.168.1.0/24"]},
        laptop=LAPTOP | {"ranges": ["192.168.0.0/16"]},
    )
    assert codes(found["server"]) == codes(found["laptop"]) == ["range_overlaps"]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"mesh_range": "10.8.0.1/24"}, "mesh_range_invalid"),
        ({"mesh_range": "fd00::/64"}, "mesh_range_invalid"),
        ({"mesh_interface": "ppn0; reboot"}, "mesh_interface_invalid"),
        ({"mesh_port": 51821}, "mesh_port_invalid"),
        ({"mesh_port": "51820"}, "mesh_port_invalid"),
        ({"ssh_from": "203.0.113.7/32"}, "ssh_from_invalid"),
        ({"ssh_from": ["203.0.113.7/24"]}, "ssh_from_invalid"),
        ({"ssh_from": [7]}, "ssh_from_invalid"),
    ],
)
def test_bad_settings_refuse_every_node(settings: dict[str, Any], code: str) -> None:
    pool, found = pool_from_data(settings, {"relay": RELAY, "server": SERVER})
    assert pool.nodes == ()
    assert codes(found["relay"]) == codes(found["server"]) == [code]


def test_unknown_node_is_named_with_the_known() -> None:
    pool, _ = pool_from_data({}, {"relay": RELAY})
    with pytest.raises(NodeUnknown, match="its sound nodes are: relay"):
        pool.node("rely")


PROXY: dict[str, Any] = RELAY | {"roles": ["relay", "tenant-proxy"]}
PEER: dict[str, Any] = {
    "name": "acme-laptop",
    "tenant": "acme",
    "mesh_address": "10.8.0.200",
    "public_key": key_of("acme-laptop"),
}
OTHER: dict[str, Any] = {
    "name": "beta-desk",
    "tenant": "beta",
    "mesh_address": "10.8.0.201",
    "public_key": key_of("beta-desk"),
}


def peers_judged(
    *peers: object, **nodes: dict[str, Any]
) -> tuple[tuple[TenantPeer, ...], list[str]]:
    """The customers of a pool, and what is wrong with them for each of its nodes."""
    pool, found = pool_from_data({"tenant_peers": list(peers)}, nodes or {"relay": PROXY})
    texts = list(found.values())
    assert all(one == texts[0] for one in texts) and len(texts) in (0, len(nodes or "1"))
    assert bool(pool.nodes) is not bool(texts), "a bad customer leaves no node as it should be"
    return pool.tenant_peers, texts[0] if texts else []


def test_customers_are_peers_and_no_nodes() -> None:
    """MESH-03: a customer has an address of the mesh, and is not in the list of nodes."""
    peers, none = peers_judged(PEER, OTHER)
    assert none == []
    assert peers == (
        TenantPeer("acme-laptop", "acme", IPv4Address("10.8.0.200"), key_of("acme-laptop")),
        TenantPeer("beta-desk", "beta", IPv4Address("10.8.0.201"), key_of("beta-desk")),
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": None}, "tenant_peer_name_invalid"),
        ({"name": "a\n[Peer]"}, "tenant_peer_name_invalid"),
        ({"name": "relay"}, "name_duplicate"),
        ({"name": "beta-desk"}, "name_duplicate"),
        ({"tenant": ""}, "tenant_invalid"),
        ({"tenant": 7}, "tenant_invalid"),
        ({"tenant": "operator"}, "tenant_invalid"),
        ({"mesh_address": None}, "address_missing"),
        ({"mesh_address": "10.8.0"}, "address_invalid"),
        ({"mesh_address": "10.8.0.0"}, "address_out_of_range"),
        ({"mesh_address": "10.9.0.7"}, "address_out_of_range"),
        ({"mesh_address": "10.8.0.1"}, "address_duplicate"),
        ({"mesh_address": "10.8.0.201"}, "address_duplicate"),
        ({"public_key": None}, "public_key_invalid"),
        ({"public_key": "short"}, "public_key_invalid"),
        ({"public_key": key_of("x").rstrip("=")}, "public_key_invalid"),
        ({"public_key": key_of("beta-desk")}, "public_key_duplicate"),
        ({"endpoint": "198.51.100.7:51820"}, "tenant_peer_key_unknown"),
    ],
)
def test_one_problem_of_one_customer(change: dict[str, Any], code: str) -> None:
    peers, texts = peers_judged(OTHER, PEER | change)
    assert (peers, codes(texts)) == ((), [code])
    assert "tenant peer" in texts[0]


def test_customers_need_a_proxy_they_can_reach() -> None:
    for peers in ("acme", [7], [None]):
        found = pool_from_data({"tenant_peers": peers}, {"relay": PROXY})[1]
        assert codes(found["relay"]) in (["tenant_peers_invalid"], ["tenant_peer_invalid"])
    assert codes(peers_judged(PEER, relay=RELAY)[1]) == ["tenant_proxy_missing"]
    hidden = LAPTOP | {"roles": ["tenant-proxy"]}
    assert codes(peers_judged(PEER, laptop=hidden)[1]) == ["tenant_proxy_unreachable"]
    assert peers_judged(PEER, laptop=hidden, relay=RELAY)[1] == []
    assert peers_judged(PEER, laptop=hidden | {"endpoint": "192.0.2.7:51820"})[1] == []


def test_a_tenant_is_named_as_an_owner_of_vms_is() -> None:
    assert f"^{TENANT.pattern}$" == OWNER_PATTERN


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.lists(st.one_of(st.none(), st.text(), st.lists(st.none()))),
)
KEYS = [
    "roles",
    "site",
    "mesh_address",
    "endpoint",
    "site_endpoint",
    "ranges",
    "reserved",
    "vm_range",
]


@given(st.dictionaries(st.text(), st.dictionaries(st.sampled_from(KEYS), VALUES)))
def test_any_data_are_judged_and_no_bad_node_gets_in(data: dict[str, dict[str, Any]]) -> None:
    pool, found = pool_from_data({}, data)
    assert {node.name for node in pool.nodes} | set(found) == set(data)
    assert not {node.name for node in pool.nodes} & set(found)
    assert all(texts and all(text for text in texts) for texts in found.values())


PEER_KEYS = st.one_of(st.sampled_from([*PEER]), st.text(), st.integers())


@given(st.lists(st.one_of(VALUES, st.dictionaries(PEER_KEYS, VALUES))))
def test_any_customers_are_judged_and_no_bad_one_gets_in(peers: list[Any]) -> None:
    found, texts = peers_judged(*peers)
    assert found == () and bool(texts) is bool(peers)
