"""What a controller has placed and removed, until heartbeats say the same: debits and credits."""

from __future__ import annotations

import pytest

from ppn.errors import Refusal
from ppn.fleet.node import Reservation
from ppn.fleet.registry import SETTLE_SECONDS
from ppn.fleet.reports import placed_vm
from ppn.wire.heartbeat import Heartbeat, VmReport
from ppn.wire.problems import NoCapacity
from tests.unit.fleet.builders import SESSION, demand, heartbeat, report
from tests.unit.fleet.registries import (
    EMPTY,
    ONE_LESS,
    OTHER_SESSION,
    TWO_LESS,
    free,
    hear,
    holds,
    registry_of,
)


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
