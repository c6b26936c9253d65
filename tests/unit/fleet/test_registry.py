"""What a controller knows: heartbeats, their order, debits and credits, silence."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from ppn.errors import Refusal
from ppn.fleet.model import MARGIN_MIB
from ppn.fleet.node import Reservation
from ppn.fleet.registry import INTERVAL_SECONDS, SETTLE_SECONDS, STALE_SECONDS, Registry
from ppn.fleet.reports import fleet_report, node_report, node_reports, placed_vm, pool_alerts
from ppn.wire.heartbeat import Alert, Heartbeat, VmReport
from ppn.wire.problems import NoCapacity
from tests.unit.fleet.builders import SESSION, demand, heartbeat, report

ADDRESSES = {
    "a": IPv4Address("10.8.0.1"),
    "b": IPv4Address("10.8.0.2"),
    "c": IPv4Address("10.8.0.3"),
}
OTHER_SESSION = "1" * 32


def registry_of(*heartbeats: Heartbeat, names: Iterable[str] = "abc") -> Registry:
    """A registry at time 0 that knows these nodes and has heard these heartbeats."""
    registry = Registry({name: ADDRESSES[name] for name in names}, 0.0)
    for one in heartbeats:
        hear(registry, one, 0.0)
    return registry


def hear(registry: Registry, one: Heartbeat, now: float) -> None:
    registry.hear(one, ADDRESSES[one.node], now)


def free(registry: Registry, name: str) -> tuple[int, int, int, int | None]:
    """vCPUs, memory, disk in GiB and addresses."""
    view = registry.view(registry.nodes[name])
    assert view is not None
    return view.free_vcpus, view.free_memory_mib, view.free_disk_mib // 1024, view.addresses


EMPTY = (16, 32768 - 512 - MARGIN_MIB, 1000, 253)
ONE_LESS = (14, EMPTY[1] - 1024, 990, 252)
TWO_LESS = (12, EMPTY[1] - 2048, 980, 251)


def holds(registry: Registry, now: float = 0.0, owner: str | None = None) -> list[tuple[str, str]]:
    return [(held.report.id, held.node) for held in registry.vms(now, owner)]


def code(refused: pytest.ExceptionInfo[Refusal]) -> str:
    return refused.value.code


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


def test_what_was_placed_is_debited_at_once() -> None:
    """FLEET-05: several requests between two heartbeats, to the exact boundary."""
    registry = registry_of(heartbeat("a", cpus=4), names="a")
    first = registry.reserve("vm-1", demand(), 0.0)
    assert registry.reserve("vm-2", demand(), 0.0).node == first.node == "a"
    with pytest.raises(NoCapacity) as refused:
        registry.reserve("vm-3", demand(), 0.0)
    (why,) = refused.value.nodes
    assert (why.code, why.wanted, why.free) == ("vcpus_exhausted", 2, 0)
    registry.release(first)
    assert registry.reserve("vm-3", demand(), 0.0).node == "a"


def test_reservation_is_undone_whole() -> None:
    """FLEET-17, IP-01: capacity, address and the place in the lists."""
    registry = registry_of(heartbeat("a"), names="a")
    reservation = registry.reserve("vm-1", demand(label="web"), 0.0)
    assert reservation.session == SESSION and reservation.address is not None
    assert free(registry, "a") == ONE_LESS
    (held,) = registry.find("vm-1", 0.0)
    seen = placed_vm(held).vm
    assert (seen.state, seen.address) == ("creating", reservation.address)
    assert registry.index.holders(("acme", "web")) == {"a"}
    registry.release(reservation)
    registry.release(reservation)
    assert free(registry, "a") == EMPTY and holds(registry) == []
    assert registry.index.holders(("acme", "web")) == set()


def test_addresses_differ_from_those_reported_and_those_pending() -> None:
    """IP-01: until the range is exhausted; then the refusal says so and nothing is debited."""
    network = {"range": "10.9.2.8/29", "first_port": 30000, "last_port": 30009}
    busy = [report(f"r{last}", address=f"10.9.2.{last}") for last in (10, 12)]
    fields = heartbeat("a").model_dump() | {
        "network": network,
        "vms": [vm.model_dump() for vm in busy],
    }
    registry = registry_of(Heartbeat.model_validate(fields), names="a")
    placed = [registry.reserve(f"vm-{number}", demand(), 0.0) for number in range(3)]
    found = {one.address for one in placed}
    assert found == {"10.9.2.11", "10.9.2.13", "10.9.2.14"}
    with pytest.raises(NoCapacity) as refused:
        registry.reserve("vm-3", demand(), 0.0)
    assert [one.code for one in refused.value.nodes] == ["addresses_exhausted"]
    assert registry.find("vm-3", 0.0) == ()
    registry.release(placed[1])
    assert registry.reserve("vm-3", demand(), 0.0).address == placed[1].address


def test_heartbeat_that_shows_the_vm_ends_the_debit() -> None:
    """FLEET-05: it is counted once, before, between and after."""
    registry = registry_of(heartbeat("a"), names="a")
    reservation = registry.reserve("vm-1", demand(), 0.0)
    hear(registry, heartbeat("a", sequence=2), 1.0)  # made before the agent heard of it
    assert free(registry, "a") == ONE_LESS
    hear(registry, heartbeat("a", report("vm-1", address="10.9.2.9"), sequence=3), 2.0)
    assert free(registry, "a") == ONE_LESS
    registry.settle(reservation, 3.0, report("vm-1"))
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("vm-1", "a")]


def test_failed_call_whose_vm_was_seen_meanwhile() -> None:
    """FLEET-05: while it was in the making the heartbeat counted it; afterwards it is free."""
    registry = registry_of(heartbeat("a"), names="a")
    reservation = registry.reserve("vm-1", demand(), 0.0)
    hear(registry, heartbeat("a", report("vm-1", state="creating"), sequence=2), 1.0)
    hear(registry, heartbeat("a", sequence=3), 2.0)
    assert free(registry, "a") == ONE_LESS  # the call still runs
    registry.release(reservation)
    assert free(registry, "a") == EMPTY and holds(registry) == []


@pytest.mark.parametrize("answer", [report("vm-1"), None])
def test_after_the_call_heartbeats_decide(answer: VmReport | None) -> None:
    """FLEET-19: one that was on its way says nothing yet; a later one without the VM does."""
    registry = registry_of(heartbeat("a"), names="a")
    reservation = registry.reserve("vm-1", demand(), 0.0)
    registry.settle(reservation, 1.0, answer)
    state = "running" if answer else "creating"
    assert registry.find("vm-1", 1.0)[0].report.state == state
    hear(registry, heartbeat("a", sequence=2), 1.0 + SETTLE_SECONDS - 0.1)
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("vm-1", "a")]
    hear(registry, heartbeat("a", sequence=3), 1.0 + SETTLE_SECONDS)
    assert free(registry, "a") == EMPTY and holds(registry) == []


@pytest.mark.parametrize("seen_first", [True, False])
def test_vm_another_controller_destroyed_is_gone_at_once(seen_first: bool) -> None:
    """FLEET-01: once a heartbeat has shown a VM that was made, the next one without it counts."""
    registry = registry_of(heartbeat("a"), names="a")
    reservation = registry.reserve("vm-1", demand(), 0.0)
    for seen in (True, False) if seen_first else (False, True):
        if seen:
            hear(registry, heartbeat("a", report("vm-1"), sequence=2), 1.0)
        else:
            registry.settle(reservation, 1.0, report("vm-1"))
    hear(registry, heartbeat("a", sequence=3), 2.0)
    assert free(registry, "a") == EMPTY and holds(registry) == []


def test_newer_session_without_the_vm_ends_the_debit() -> None:
    """HOST-02: the ticket was for the session before; nobody can take it now."""
    registry = registry_of(heartbeat("a"), names="a")
    reservation = registry.reserve("vm-1", demand(), 0.0)
    hear(registry, heartbeat("a", session=OTHER_SESSION), 1.0)
    assert free(registry, "a") == EMPTY and holds(registry) == []
    registry.settle(reservation, 2.0)
    registry.release(reservation)
    assert free(registry, "a") == EMPTY


def test_late_answer_to_an_older_decision_changes_nothing() -> None:
    """FLEET-19: the VM was asked for again meanwhile; that request is not the one refused."""
    registry = registry_of(heartbeat("a"), names="a")
    older = registry.reserve("vm-1", demand(), 0.0)
    hear(registry, heartbeat("a", session=OTHER_SESSION), 1.0)
    newer = registry.reserve("vm-1", demand(), 1.0)
    registry.release(older)
    registry.settle(older, 1.0)
    assert free(registry, "a") == ONE_LESS and registry.nodes["a"].reserved["vm-1"] == newer


def test_destroyed_vm_is_credited_at_once() -> None:
    """FLEET-01: an old heartbeat on its way does not bring it back."""
    vm = report(label="web", address="10.9.2.7")
    registry = registry_of(heartbeat("a", vm, report("db")), names="a")
    assert free(registry, "a") == TWO_LESS
    registry.forget("web", "a", 1.0)
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("db", "a")]
    assert registry.index.holders(("acme", "web")) == set()
    hear(registry, heartbeat("a", vm, report("db"), sequence=2), 2.0)
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("db", "a")]
    hear(registry, heartbeat("a", report("db"), sequence=3), 3.0)
    assert free(registry, "a") == ONE_LESS
    registry.forget("nothing", "a", 3.0)
    assert free(registry, "a") == ONE_LESS


@pytest.mark.parametrize(
    ("later", "now"),
    [
        (heartbeat("a", report(), sequence=2), 1.0 + SETTLE_SECONDS),
        (heartbeat("a", report(), session=OTHER_SESSION), 2.0),
        (heartbeat("a", report(uuid="other"), sequence=2), 2.0),
    ],
)
def test_node_that_still_has_a_destroyed_vm_is_believed(later: Heartbeat, now: float) -> None:
    """FLEET-19: long after, in a newer session, or when it is another VM of that id."""
    registry = registry_of(heartbeat("a", report()), names="a")
    registry.forget("web", "a", 1.0)
    hear(registry, later, now)
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("web", "a")]


def test_vm_made_again_where_it_was_destroyed() -> None:
    """FLEET-19: the old one is credited and the new one debited, whatever is on its way."""
    registry = registry_of(heartbeat("a", report()), names="a")
    registry.forget("web", "a", 1.0)
    registry.reserve("web", demand(), 1.0)
    hear(registry, heartbeat("a", report(), sequence=2), 2.0)
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("web", "a")]
    hear(registry, heartbeat("a", report(uuid="new"), sequence=3), 3.0)
    assert free(registry, "a") == ONE_LESS and holds(registry) == [("web", "a")]
    registry.forget("web", "a", 4.0)
    assert free(registry, "a") == EMPTY and holds(registry) == []


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


def test_batch_is_all_or_nothing() -> None:
    """FLEET-12: one that does not fit undoes those before it; each sees those before it."""
    registry = registry_of(heartbeat("a", cpus=4), heartbeat("b", cpus=4), names="ab")
    four = {f"vm-{number}": demand() for number in range(4)}
    found = registry.reserve_all(four, 0.0)
    assert sorted(one.node for one in found.values() if not isinstance(one, Refusal)) == list(
        "aabb"
    )
    for one in found.values():
        assert isinstance(one, Reservation)
        registry.release(one)
    with pytest.raises(NoCapacity):
        registry.reserve_all(four | {"vm-4": demand()}, 0.0)
    assert holds(registry) == [] and free(registry, "a")[0] == free(registry, "b")[0] == 4


def test_batch_per_item() -> None:
    """FLEET-12: those that fit are placed, the others say why, in the order asked."""
    registry = registry_of(heartbeat("a", cpus=4), names="a")
    wanted = {"vm-1": demand(), "vm-2": demand(vcpus=4), "vm-3": demand()}
    found = registry.reserve_all(wanted, 0.0, per_item=True)
    assert list(found) == list(wanted)
    assert isinstance(found["vm-2"], NoCapacity)
    assert holds(registry) == [("vm-1", "a"), ("vm-3", "a")]


def test_batch_spreads_by_anti_affinity() -> None:
    """FLEET-12: the labels of those before count at once."""
    registry = registry_of(heartbeat("a"), heartbeat("b"), names="ab")
    apart = demand(label="web", anti_affinity="web")
    found = registry.reserve_all({"vm-1": apart, "vm-2": apart, "vm-3": apart}, 0.0, per_item=True)
    assert holds(registry) == [("vm-1", "a"), ("vm-2", "b")]
    last = found["vm-3"]
    assert isinstance(last, NoCapacity)
    assert {one.code for one in last.nodes} == {"anti_affinity_unmet"}
