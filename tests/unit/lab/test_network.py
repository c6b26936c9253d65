"""The lab's networks as data: who is where, and what passes between them."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_interface

import pytest

from lab.network import Namespace, cut_rules, interface_commands, plan
from lab.topology import INTERNET, NODES, SITES, Kind, kinds_of


def space(kind: Kind, name: str) -> Namespace:
    """The namespace of a plan with this name."""
    return next(found for found in plan(kinds_of(kind)).namespaces if found.name == name)


@pytest.mark.parametrize("kind", Kind)
def test_every_cable_end_is_used_once(kind: Kind) -> None:
    """Each end has an address or a place on a switch, in a namespace that exists."""
    network = plan(kinds_of(kind))
    ends = Counter(
        end
        for cable in network.cables
        for end in ((cable.namespace, cable.end), (cable.far_namespace, cable.far_end))
    )
    used = {
        (found.name, end)
        for found in network.namespaces
        for end in (*found.switch, *(end for end, _ in found.addresses))
    }
    assert set(ends) == used
    assert set(ends.values()) == {1}


@pytest.mark.parametrize("kind", Kind)
def test_interface_names_fit_the_kernel(kind: Kind) -> None:
    """The kernel takes 15 characters."""
    for cable in plan(kinds_of(kind)).cables:
        assert max(len(cable.end), len(cable.far_end)) <= 15


def test_container_has_its_address_and_machine_a_tap() -> None:
    """A container's interface is set from outside, a machine sets its own behind a tap."""
    assert space(Kind.CONTAINER, "server").addresses == (("eth0", "192.168.1.10/24"),)
    assert space(Kind.CONTAINER, "server").gateway == "192.168.1.1"
    assert space(Kind.CONTAINER, "relay").gateway is None
    machine = space(Kind.VM, "server")
    assert machine.tap
    assert machine.addresses == ()


def test_both_kinds_have_the_same_world_around_them() -> None:
    """Routers, internet, operator and customer do not depend on what the nodes are."""
    outside = {INTERNET, "operator", "customer", *(site.name for site in SITES)}
    for name in outside:
        assert space(Kind.CONTAINER, name) == space(Kind.VM, name)


def test_only_documentation_and_private_addresses() -> None:
    """No address of the lab is anyone's on the real internet, and no namespace has a way there."""
    for found in plan(kinds_of(Kind.CONTAINER)).namespaces:
        for _, address in found.addresses:
            assert not ip_address(ip_interface(address).ip).is_global
    assert space(Kind.CONTAINER, "site-a").gateway is None
    assert space(Kind.CONTAINER, INTERNET).gateway is None


def test_only_site_a_forwards_wireguard() -> None:
    """Site B is the home whose router forwards nothing."""
    forward = "udp dport 51820 dnat to"
    assert f"{forward} 192.168.1.10" in space(Kind.CONTAINER, "site-a").rules
    assert forward not in space(Kind.CONTAINER, "site-b").rules


def test_machine_commands_plug_the_tap_in() -> None:
    """A tap that is on no switch reaches nothing."""
    commands = interface_commands(space(Kind.VM, "relay"))
    assert "link set tap0 master br0" in commands
    assert "link set uplink master br0" in commands


def test_cut_stops_both_ways_and_heal_leaves_no_table() -> None:
    """One pair of ports gives two rules; no pair, no table."""
    rules = cut_rules(frozenset({("site-a", "site-b")}))
    assert 'iifname "site-a" oifname "site-b" drop' in rules
    assert 'iifname "site-b" oifname "site-a" drop' in rules
    assert "hook" not in cut_rules(frozenset())


def test_nodes_have_addresses_of_their_own() -> None:
    """No two nodes share an address, inside or as the operator sees them."""
    assert len({node.address for node in NODES}) == len(NODES)
    assert len({node.ssh_address for node in NODES}) == len(NODES)
