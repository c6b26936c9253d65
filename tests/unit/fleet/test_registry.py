"""What a controller knows of nodes: heartbeats, their order, silence, lists."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from ppn.errors import Refusal
from ppn.fleet.registry import INTERVAL_SECONDS, Registry
from ppn.fleet.reports import fleet_report, node_report, node_reports, pool_alerts
from ppn.fleet.settings import STALE_SECONDS
from ppn.wire.heartbeat import Alert
from ppn.wire.problems import NoCapacity
from tests.unit.fleet.builders import demand, heartbeat, report
from tests.unit.fleet.registries import (
    ADDRESSES,
    EMPTY,
    ONE_LESS,
    OTHER_SESSION,
    code,
    free,
    hear,
    holds,
    registry_of,
)


def test_heartbeat_becomes_a_node_record() -> None:
    """FLEET-02, FLEET-06: capacity, KVM, VM count, reservation; gone after a restart."""
    alert = Alert(code="qemu_gone", subject="web", message="gone")
    registry = registry_of(heartbeat("a", report(), reserved=True, alerts=(alert,)))
    found = node_report(registry, registry.nodes["a"], 4.0)
    assert found is not None
    assert (found.age_seconds, found.stale, found.vms) == (4.0, False, 1)
    assert (found.reserved, found.kvm, found.kvm_reason) == (True, False, "no /dev/kvm")
    assert (found.vcpus, found.free_vcpus) == (16, 14)
    assert (found.memory_mib, found.free_memory_mib) == (32768 - 512, ONE_LESS[1])
    assert found.free_disk_mib == 990 * 1024
    assert [one.name for one in node_reports(registry, 4.0)] == ["a"]
    restarted = registry_of()
    assert node_reports(restarted, 0.0) == () and restarted.vms(0.0) == ()


def test_fleet_totals_are_the_sums_over_live_nodes() -> None:
    """FLEET-01, FLEET-06."""
    registry = registry_of(heartbeat("a", report()))
    hear(registry, heartbeat("b", report("db")), 25.0)
    total = fleet_report(registry, "a", 25.0)
    assert (total.nodes, total.live, total.vms, total.vcpus, total.free_vcpus) == (3, 2, 2, 32, 28)
    later = fleet_report(registry, "a", 50.0)
    assert (later.live, later.vms, later.free_vcpus) == (1, 2, 14)
    assert later.free_memory_mib == ONE_LESS[1]
    assert later.alerts == 2  # of a and c, which are silent


@pytest.mark.parametrize(
    ("name", "source"), [("a", "10.8.0.2"), ("a", "192.0.2.1"), ("z", "10.8.0.1")]
)
def test_heartbeat_from_a_wrong_address_changes_nothing(name: str, source: str) -> None:
    """FLEET-08: the address is the node's identity; no other credential is needed."""
    registry = registry_of(heartbeat("a"))
    with pytest.raises(Refusal) as refused:
        registry.hear(heartbeat(name, report(), sequence=2), IPv4Address(source), 1.0)
    assert code(refused) == "source_wrong"
    assert free(registry, "a") == EMPTY and registry.nodes["a"].heard == 0.0


@pytest.mark.parametrize("sequence", [4, 5])
def test_older_heartbeat_never_replaces_a_newer_one(sequence: int) -> None:
    """FLEET-16: also not one that came twice."""
    registry = registry_of(heartbeat("a", report(), sequence=5))
    with pytest.raises(Refusal) as refused:
        hear(registry, heartbeat("a", sequence=sequence), 1.0)
    assert code(refused) == "heartbeat_old"
    assert free(registry, "a") == ONE_LESS


def test_session_that_ended_is_not_believed() -> None:
    """HOST-06: a new session begins to count anew; a late word of the old one is refused."""
    registry = registry_of(heartbeat("a", sequence=500))
    hear(registry, heartbeat("a", report(), session=OTHER_SESSION, sequence=0), 1.0)
    with pytest.raises(Refusal) as refused:
        hear(registry, heartbeat("a", sequence=501), 2.0)
    assert code(refused) == "heartbeat_old"
    assert free(registry, "a") == ONE_LESS


def test_sessions_in_the_wrong_order_right_themselves() -> None:
    """HOST-06: the session that still speaks is believed once the other is silent for long."""
    registry = registry_of(heartbeat("a", session=OTHER_SESSION))
    hear(registry, heartbeat("a", sequence=7), 1.0)  # of an older session, in truth
    late = 1.0 + STALE_SECONDS
    with pytest.raises(Refusal):
        hear(registry, heartbeat("a", session=OTHER_SESSION, sequence=4), late)
    hear(registry, heartbeat("a", session=OTHER_SESSION, sequence=5), late + 0.1)
    hear(registry, heartbeat("a", report(), session=OTHER_SESSION, sequence=6), late + 0.2)
    assert free(registry, "a") == ONE_LESS


def test_silent_node_is_no_candidate_until_it_is_heard() -> None:
    """FLEET-16: by the controller's own clock, at the exact limit."""
    registry = registry_of(heartbeat("a"))
    registry.expire(STALE_SECONDS)
    assert registry.index.view("a") is not None
    with pytest.raises(NoCapacity) as refused:
        registry.reserve("vm-1", demand(), STALE_SECONDS + 0.1)
    assert [(one.node, one.code) for one in refused.value.nodes] == [
        (name, "node_stale") for name in "abc"
    ]
    assert node_reports(registry, 31.0)[0].stale
    hear(registry, heartbeat("a", sequence=2), 40.0)
    assert registry.reserve("vm-1", demand(), 40.0).node == "a"


def test_patience_is_a_setting() -> None:
    """FLEET-16: the same rule, whatever the seconds."""
    registry = Registry({"a": ADDRESSES["a"]}, 0.0, stale_seconds=3.0)
    hear(registry, heartbeat("a"), 0.0)
    assert not registry.is_stale(registry.nodes["a"], 3.0)
    assert registry.is_stale(registry.nodes["a"], 3.1)
    registry.expire(3.0)
    assert list(registry.index.views()) == ["a"]
    registry.expire(3.1)
    assert not registry.index.views()


def test_each_node_is_silent_by_itself() -> None:
    """FLEET-16: the one heard first may be the one heard last."""
    registry = registry_of(heartbeat("a"), heartbeat("b"))
    hear(registry, heartbeat("a", sequence=2), 20.0)
    registry.expire(STALE_SECONDS + 1.0)
    assert list(registry.index.views()) == ["a"]


def test_next_decision_follows_the_next_heartbeat() -> None:
    """FLEET-16."""
    registry = registry_of(heartbeat("a"), heartbeat("b", report()))
    assert registry.reserve("vm-1", demand(), 1.0).node == "a"
    hear(registry, heartbeat("a", report("big", vcpus=14), sequence=2), 2.0)
    assert registry.reserve("vm-2", demand(), 2.0).node == "b"


def test_lists_by_owner_are_disjoint_and_complete() -> None:
    """FLEET-07: at once, some heartbeats later, after a restart, and when an owner changes."""
    beats = [heartbeat("a", report("x"), report("y", owner="beta")), heartbeat("b", report("z"))]
    registry = registry_of(*beats)
    registry.reserve("new", demand(owner="beta"), 0.0)
    acme, beta = [("x", "a"), ("z", "b")], [("new", "b"), ("y", "a")]
    for again in (registry, registry_of(*beats)):
        assert holds(again, owner="acme") == acme
    assert holds(registry, owner="beta") == beta
    assert holds(registry, owner="nobody") == []
    assert holds(registry) == sorted(acme + beta)
    hear(registry, heartbeat("a", report("x", owner="beta"), sequence=2), 1.0)
    assert holds(registry, owner="acme") == [("z", "b")]
    assert holds(registry, owner="beta") == [("new", "b"), ("x", "a")]


def test_vm_on_two_nodes_is_an_alert() -> None:
    """FLEET-19: found everywhere, never placed again, and over when one of them is gone."""
    registry = registry_of(heartbeat("a", report()), heartbeat("b", report()), names="ab")
    assert registry.doubled() == {"web": ("a", "b")}
    assert [held.node for held in registry.find("web", 0.0)] == ["a", "b"]
    assert [(one.code, one.subject) for one in pool_alerts(registry, 0.0)] == [
        ("vm_doubled", "web")
    ]
    with pytest.raises(Refusal) as refused:
        registry.reserve("web", demand(), 0.0)
    assert code(refused) == "vm_exists"
    registry.forget("web", "b", 0.0)
    assert registry.doubled() == {} and list(pool_alerts(registry, 0.0)) == []


def test_controller_hears_before_it_judges() -> None:
    """FLEET-19: until every node was heard, or for two heartbeat intervals."""
    registry = registry_of(heartbeat("a"), heartbeat("b"))
    with pytest.raises(Refusal) as refused:
        registry.check_warm(5.0)
    assert (code(refused), refused.value.wanted, refused.value.free) == ("warming_up", 3, 2)
    hear(registry, heartbeat("c"), 5.0)
    registry.check_warm(5.0)
    silent = registry_of()
    with pytest.raises(Refusal):
        silent.check_warm(2 * INTERVAL_SECONDS - 0.1)
    silent.check_warm(2 * INTERVAL_SECONDS)
