"""What is put right on a live node, and what a balloon may be asked for."""

from __future__ import annotations

import pytest

from ppn.errors import Refusal
from ppn.host.enforce import Correction, admit_balloon, corrections
from ppn.host.model import Enforcement, VmMemory, VmWeight
from tests.unit.host.builders import make_node, make_spec, make_view


def test_weight_follows_the_ledger_where_it_takes_effect() -> None:
    """CPU-07, CPU-03: a weight changed by hand is put right."""
    view = make_view(make_spec(), weight=VmWeight(wanted=300, actual=100))
    assert corrections(make_node(view)) == (Correction("web", "weight", 100, 300),)
    right = make_view(make_spec(), weight=VmWeight(wanted=300, actual=300, enforced=True))
    assert corrections(make_node(right)) == ()
    cannot = Enforcement(enforced=False, reason="no controller")
    assert corrections(make_node(view, cpu_weight=cannot)) == ()


def test_memory_below_the_minimum_is_given_back() -> None:
    """BAL-08: never below the minimum; above it the balloon is left alone."""
    for current, wanted in ((256, 300), (300, None), (400, None)):
        memory = VmMemory(maximum_mib=512, minimum_mib=300, current_mib=current)
        found = corrections(make_node(make_view(make_spec(), memory=memory)))
        assert [correction.wanted for correction in found] == ([wanted] if wanted else [])


def test_minimum_above_the_memory_asks_for_all_there_is() -> None:
    memory = VmMemory(maximum_mib=512, minimum_mib=1024, current_mib=512)
    assert corrections(make_node(make_view(make_spec(), memory=memory))) == ()


def test_stopped_vms_are_left_alone() -> None:
    view = make_view(make_spec(state="stopped"), weight=VmWeight(wanted=300, actual=100))
    assert corrections(make_node(view)) == ()


@pytest.mark.parametrize(
    ("mib", "code"), [(255, "below_minimum"), (513, "above_maximum"), (256, ""), (512, "")]
)
def test_balloon_bounds(mib: int, code: str) -> None:
    """BAL-10: refused below the minimum, with the numbers."""
    memory = VmMemory(maximum_mib=512, minimum_mib=256, current_mib=512)
    view = make_view(make_spec(), memory=memory)
    if not code:
        assert admit_balloon(view, "web", mib) is view
        return
    with pytest.raises(Refusal) as refused:
        admit_balloon(view, "web", mib)
    assert (refused.value.code, refused.value.wanted) == (code, mib)


def test_balloon_needs_a_running_vm() -> None:
    for view, code in ((None, "vm_unknown"), (make_view(make_spec(state="stopped")), None)):
        with pytest.raises(Refusal) as refused:
            admit_balloon(view, "web", 256)
        assert refused.value.code == (code or "vm_not_running")
