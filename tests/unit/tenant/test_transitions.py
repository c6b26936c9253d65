"""What becomes of an allocation: requests that overlap, fail, or never say how they ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ppn.errors import Refusal
from ppn.tenant import transitions
from ppn.tenant.model import Allocation, Amount, State
from tests.unit.tenant.samples import LARGE, LATER, LEASE, NOW, SMALL, allocation

SECOND = timedelta(seconds=1)
SOON = NOW + SECOND


def code_of(caught: pytest.ExceptionInfo[Refusal]) -> str:
    """The code of a refusal."""
    return caught.value.code


def test_a_repeated_order_joins_and_extends_the_lease() -> None:
    joined = transitions.join(allocation(), SMALL, LEASE, SOON, "new")
    assert (joined.holders, joined.until, joined.amount) == (2, SOON + LEASE, SMALL)
    assert joined.operation == "new"  # what a sweeper saw before no longer counts


def test_a_repeated_order_of_a_vm_that_is_there_changes_no_figure() -> None:
    there = replace(allocation("settled", holders=0), amount=LARGE)
    joined = transitions.join(there, SMALL, LEASE, SOON, "new")
    assert (joined.amount, joined.state, joined.operation) == (LARGE, "settled", there.operation)


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (allocation(), LARGE),
        (replace(allocation(), amount=LARGE), SMALL),
        (allocation("settled", holders=0), LARGE),
    ],
    ids=["made smaller", "made larger", "there and smaller"],
)
def test_another_order_under_the_same_key_is_refused(there: Allocation, wanted: Amount) -> None:
    """TEN-08: it could make more than is counted."""
    with pytest.raises(Refusal) as caught:
        transitions.join(there, wanted, LEASE, NOW, "new")
    assert code_of(caught) == "order_differs"


def test_one_of_two_requests_that_made_nothing_frees_nothing() -> None:
    """The other one may be making the VM at this very moment."""
    left = transitions.release(allocation(holders=2))
    assert left is not None
    assert (left.state, left.holders) == ("reserved", 1)
    assert transitions.release(left) is None


def test_a_late_failure_frees_nothing_of_a_vm_that_is_there() -> None:
    states: tuple[State, ...] = ("settled", "removing")
    for state in states:
        left = transitions.release(allocation(state, holders=1))
        assert left is not None
        assert left.state == state


def test_settling_twice_is_settling_once() -> None:
    once = transitions.settle(allocation(holders=2), SOON)
    twice = transitions.settle(once, SOON + SECOND)
    assert (once.state, once.holders, once.since) == ("settled", 1, SOON)
    assert (twice.state, twice.holders, twice.since) == ("settled", 0, SOON)
    assert transitions.settle(twice, SOON).holders == 0


def test_a_late_success_does_not_bring_back_what_is_removed() -> None:
    removing = allocation("removing")
    assert transitions.settle(removing, SOON) == removing


def test_a_change_counts_the_larger_of_both_until_it_is_over() -> None:
    there = allocation("settled", holders=0)
    begun = transitions.begin_change(there, replace(LARGE, disk_gib=5), LEASE, SOON, "op")
    assert begun.held == replace(LARGE, disk_gib=SMALL.disk_gib)
    assert begun.amount == SMALL
    done = transitions.end_change(begun, "op", LARGE, SOON)
    assert (done.amount, done.pending, done.held) == (LARGE, None, LARGE)
    undone = transitions.end_change(begun, "op", SMALL, SOON)
    assert (undone.amount, undone.pending) == (SMALL, None)


def test_the_end_of_an_earlier_change_does_not_end_a_later_one() -> None:
    there = allocation("settled", pending=LARGE, holders=0)
    assert transitions.end_change(there, "another", LARGE, SOON) == there
    removing = allocation("removing", pending=LARGE)
    assert transitions.end_change(removing, removing.operation, LARGE, SOON) == removing


def test_a_change_that_ends_after_its_lease_is_counted() -> None:
    """TEN-08: the sweeper found the VM as it was, and then the pool did as it was asked."""
    begun = transitions.begin_change(allocation("settled", holders=0), LARGE, LEASE, NOW, "op")
    swept = replace(begun, amount=SMALL, pending=None)
    assert transitions.end_change(swept, "op", LARGE, LATER).held == LARGE


@pytest.mark.parametrize(
    "there",
    [allocation("reserved"), allocation("removing"), allocation("settled", pending=LARGE)],
    ids=["making", "removing", "changing"],
)
def test_a_busy_vm_is_not_changed(there: Allocation) -> None:
    with pytest.raises(Refusal) as caught:
        transitions.begin_change(there, LARGE, LEASE, NOW, "op")
    assert code_of(caught) == "vm_busy"


@pytest.mark.parametrize(
    "there",
    [
        allocation("reserved"),
        allocation("settled", holders=1),
        allocation("settled", pending=LARGE, holders=0),
    ],
    ids=["making", "asked for again", "changing"],
)
def test_a_busy_vm_is_not_removed(there: Allocation) -> None:
    with pytest.raises(Refusal) as caught:
        transitions.begin_removal(there, LEASE, SOON, "op")
    assert code_of(caught) == "vm_busy"


@pytest.mark.parametrize("holders", [0, 1])
@pytest.mark.parametrize("pending", [None, LARGE])
def test_what_never_said_how_it_ended_holds_up_no_removal(
    holders: int, pending: Amount | None
) -> None:
    there = allocation("settled", pending=pending, holders=holders)
    begun = transitions.begin_removal(there, LEASE, LATER, "op")
    assert (begun.state, begun.holders, begun.until) == ("removing", 1, LATER + LEASE)
    assert begun.held == there.held


def test_a_removal_frees_once_nothing_is_left() -> None:
    begun = transitions.begin_removal(allocation("settled", holders=0), LEASE, SOON, "op")
    assert transitions.end_removal(begun, "op", SOON, gone=True) is None
    assert transitions.end_removal(begun, "an earlier one", SOON, gone=True) == begun


def test_a_removal_without_effect_leaves_the_vm_unless_another_goes_on() -> None:
    begun = transitions.begin_removal(allocation("settled", holders=0), LEASE, SOON, "op")
    twice = transitions.begin_removal(begun, LEASE, SOON, "other")
    assert twice.operation == "op"
    left = transitions.end_removal(twice, "op", SOON, gone=False)
    assert left is not None
    assert left.state == "removing"
    kept = transitions.end_removal(left, "op", SOON, gone=False)
    assert kept is not None
    assert (kept.state, kept.held) == ("settled", SMALL)


def test_an_order_for_a_vm_that_is_removed_waits() -> None:
    with pytest.raises(Refusal) as caught:
        transitions.join(allocation("removing"), SMALL, LEASE, NOW, "op")
    assert code_of(caught) == "vm_busy"


@pytest.mark.fault(
    "the clock is years ahead while a VM is ordered, and put right afterwards",
    "its lease counts no more: the VM can be removed, and the sweeper looks at what is open",
)
def test_a_lease_of_a_clock_that_was_ahead_has_ended() -> None:
    """TEN-09: or nobody could remove or change the VM, nor free its part, until that year."""
    ahead = NOW + timedelta(days=3650)
    left = replace(allocation("settled", pending=LARGE), until=ahead + LEASE)
    assert not left.is_busy(NOW) and left.is_busy(ahead)
    assert transitions.begin_removal(left, LEASE, NOW, "op").state == "removing"
    again = transitions.join(replace(left, pending=None), SMALL, LEASE, NOW, "op")
    assert again.until == NOW + LEASE
    begun = transitions.begin_change(replace(left, pending=None), LARGE, LEASE, NOW, "op")
    assert begun.until == NOW + LEASE
