"""What is put right on a live node, and what a balloon may be asked for."""

from __future__ import annotations

import pytest

from ppn.errors import Refusal
from ppn.host.enforce import Correction, admit_balloon, corrections
from ppn.host.model import Enforcement, Pins, VmMemory, VmPinning, VmWeight
from ppn.host.repin import Repinning, repinnings
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


def test_vcpus_go_back_to_their_cpus() -> None:
    """NUMA-03: those that strayed go back, those without get some, each its own."""
    pinned = VmPinning(wanted=Pins(cpus=(4, 5)), actual=((4,), (5,)), pinned=True)
    astray = VmPinning(wanted=Pins(cpus=(0, 1)), actual=((0,), (7,)))
    without = VmPinning(actual=((0, 1), (0, 1)))
    cases = {"right": pinned, "astray": astray, "one": without, "two": without}
    views = [make_view(make_spec(name=name), pinning=each) for name, each in cases.items()]
    stopped = make_view(make_spec(name="stopped", state="stopped"))
    node = make_node(*views, stopped, cpus=12, pinning=Enforcement(enforced=True))
    assert repinnings(node) == (
        Repinning("astray", Pins(cpus=(0, 1))),
        Repinning("one", Pins(cpus=(2, 3))),
        Repinning("two", Pins(cpus=(6, 7))),
    )
    unable = Enforcement(enforced=False, reason="few CPUs")
    assert repinnings(make_node(*views, cpus=12, pinning=unable)) == ()


def test_threads_that_cannot_be_read_are_left_alone() -> None:
    view = make_view(make_spec(), pinning=VmPinning(wanted=Pins(cpus=(0, 1))))
    assert repinnings(make_node(view, pinning=Enforcement(enforced=True))) == ()


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
    web = make_view(make_spec())
    for view, code in (
        (None, "vm_unknown"),
        (web.model_copy(update={"state": "stopped"}), "vm_not_running"),
        (web.model_copy(update={"state": "unknown"}), "qemu_silent"),
    ):
        with pytest.raises(Refusal) as refused:
            admit_balloon(view, "web", 256)
        assert refused.value.code == code
