"""What the sweeper makes of what the controllers say."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.fleet.peers import Stage
from ppn.tenant.model import Amount
from ppn.tenant.verdict import UNDECIDED, Verdict, View, decide
from ppn.wire.heartbeat import VmReport, VmState
from tests.unit.tenant.samples import LARGE, SMALL, allocation

UUID, OTHER = "1" * 8 + "-1111" * 3 + "-" + "1" * 12, "2" * 8 + "-2222" * 3 + "-" + "2" * 12


def report(
    amount: Amount = SMALL,
    state: VmState = "running",
    owner: str = "acme",
    uuid: str | None = UUID,
) -> VmReport:
    """A VM as its node reports it."""
    return VmReport(
        id="vm-a",
        uuid=uuid,
        owner=owner,
        state=state,
        vcpus=amount.vcpus,
        memory_mib=amount.memory_mib,
        minimum_mib=0,
        disk_gib=amount.disk_gib,
    )


NONE = View()
MADE = View(stage="told", vm=report())
STAGES: tuple[Stage | None, ...] = (None, *get_args(Stage))
STATES: tuple[VmState, ...] = get_args(VmState)
views = st.one_of(
    st.none(),
    st.builds(
        View,
        stage=st.sampled_from(STAGES),
        vm=st.none()
        | st.builds(
            report,
            st.sampled_from([SMALL, LARGE]),
            st.sampled_from(STATES),
            uuid=st.sampled_from([None, UUID, OTHER]),
        ),
        stale=st.booleans(),
    ),
)


@given(st.lists(views, min_size=1, max_size=4), st.sampled_from(["reserved", "removing"]))
def test_nothing_is_freed_while_any_controller_may_have_it(
    seen: list[View | None], state: str
) -> None:
    """TEN-08: only when every controller says that there is none, and that it makes none."""
    verdict = decide(allocation("reserved" if state == "reserved" else "removing"), seen)
    if verdict.what in ("forget", "gone"):
        assert all(view is not None and view.vm is None for view in seen)
        assert all(view is not None and view.stage in (None, "told") for view in seen)


@pytest.mark.parametrize("other", [None, NONE, View(stage="going"), MADE])
def test_a_vm_that_is_seen_anywhere_is_settled(other: View | None) -> None:
    assert decide(allocation(), [other, MADE]).what == "settle"


def test_a_vm_that_nobody_has_or_makes_is_forgotten() -> None:
    assert decide(allocation(), [NONE, NONE]).what == "forget"
    # Made once, told of, and removed on its node since.
    assert decide(allocation(), [NONE, View(stage="told")]).what == "forget"


@pytest.mark.parametrize(
    "view",
    [None, View(stage="checking"), View(stage="going"), View(stage="waiting")],
    ids=["silent", "checking", "going", "waiting"],
)
def test_a_controller_that_is_silent_or_at_it_is_waited_for(view: View | None) -> None:
    assert decide(allocation(), [NONE, view]).what == "wait"
    assert decide(allocation("removing"), [NONE, view]).what == "wait"


@pytest.mark.parametrize("state", sorted(UNDECIDED))
def test_a_vm_in_the_making_is_waited_for(state: VmState) -> None:
    assert decide(allocation(), [View(vm=report(state=state)), NONE]).what == "wait"


def test_a_vm_of_somebody_else_frees_and_settles_nothing() -> None:
    other = View(vm=report(owner="globex"))
    for one in (allocation(), allocation("removing"), allocation("settled", pending=LARGE)):
        assert decide(one, [other, NONE]).what == "wait"


def test_a_removal_goes_on_until_nothing_is_left() -> None:
    assert decide(allocation("removing"), [MADE, NONE]) == Verdict("remove", uuid=UUID)
    assert decide(allocation("removing"), [NONE, NONE]).what == "gone"


@given(st.lists(views, min_size=1, max_size=4))
def test_only_what_was_seen_is_removed_and_by_its_own_name(seen: list[View | None]) -> None:
    """TEN-08: or one made under the same id meanwhile would be."""
    verdict = decide(allocation("removing"), seen)
    known = {view.vm.uuid for view in seen if view is not None and view.vm is not None}
    assert (verdict.what == "remove") == bool(verdict.uuid)
    assert not verdict.uuid or verdict.uuid in known
    assert (verdict.what == "remove") == bool(known - {None})


def test_two_that_are_seen_are_removed_one_after_the_other() -> None:
    both = [View(vm=report(uuid=OTHER)), View(vm=report())]
    assert decide(allocation("removing"), both).uuid == UUID
    assert decide(allocation("removing"), both[:1]).uuid == OTHER
    assert decide(allocation("removing"), [View(vm=report(uuid=None))]).what == "wait"


@pytest.mark.parametrize(("now", "to"), list(product((SMALL, LARGE), repeat=2)))
def test_a_change_ends_with_what_the_vm_takes(now: Amount, to: Amount) -> None:
    changing = allocation("settled", pending=to)
    verdict = decide(changing, [View(vm=report(now)), NONE])
    if now.fits(changing.held):
        assert (verdict.what, verdict.amount) == ("resize", now)
    else:
        assert verdict.what == "wait"


@pytest.mark.parametrize(
    "seen",
    [
        [None, None],
        [NONE, NONE],
        [View(vm=report(), stale=True)],
        [View(vm=report()), View(vm=report(LARGE))],
        [View(vm=report()), View(vm=report(), stale=True)],
        [View(vm=report(state="unknown"))],
    ],
    ids=["silent", "nowhere", "stale", "they differ", "one is stale", "libvirt is silent"],
)
def test_a_change_that_cannot_be_judged_stays_open(seen: list[View | None]) -> None:
    assert decide(allocation("settled", pending=LARGE), seen).what == "wait"
