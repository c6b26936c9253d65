"""Memory that settles: the order of the steps, on a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import PpnError, Refusal
from ppn.host.model import VmMemory, VmView
from ppn.host.settle import (
    DEADLINE_SECONDS,
    LARGE_MIB,
    OVERHEAD_MIB,
    STEADY_MIB,
    STEADY_SECONDS,
    Clock,
    NotSettled,
    Sample,
    Stage,
    admit_buffer,
    attach_settled,
    is_steady,
    settles,
)
from tests.unit.host.builders import make_node, make_spec, make_view


class Attaching:
    """An attach that exists only as a list of what was done, and when."""

    def __init__(self, figures: Iterator[int], fails: str = "") -> None:
        self.figures, self.fails = figures, fails
        self.done: list[str] = []
        self.reserved = 0
        self.time = 0.0
        self.clock = Clock(lambda: self.time, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.time += seconds

    def _do(self, step: str) -> None:
        if step == self.fails:
            raise PpnError(f"{step} failed")
        self.done.append(step)

    def reserve(self) -> None:
        self._do("reserve")
        self.reserved = 64

    def release(self) -> None:
        self.done.append("release")
        self.reserved = 0

    def attach(self) -> None:
        assert self.reserved > 0
        self._do("attach")

    def memory_mib(self) -> int:
        assert self.reserved > 0
        if self.fails == "memory":
            raise PpnError("memory failed")
        return next(self.figures)

    def report(self, stage: Stage) -> None:
        self.done.append(stage.value)


def rising(first: int, last: int, step: int) -> Iterator[int]:
    yield from range(first, last, step)
    yield from repeat(last)


def test_the_order_of_an_attach() -> None:
    """DISK-03: reserve, attach, stabilise until the balloon is steady, ready."""
    attaching = Attaching(rising(1024, 4096, 512))
    attach_settled(attaching, attaching.clock)
    assert attaching.done == [
        *("reserving", "reserve", "attaching", "attach", "stabilising", "release", "ready"),
    ]
    # Six moves, half a second apart, and then the steady time.
    assert attaching.time == 3.0 + STEADY_SECONDS


@pytest.mark.parametrize("fails", ["reserve", "attach", "memory"])
def test_a_failure_gives_the_buffer_back(fails: str) -> None:
    """DISK-03."""
    attaching = Attaching(repeat(1024), fails)
    with pytest.raises(PpnError, match=f"{fails} failed"):
        attach_settled(attaching, attaching.clock)
    assert attaching.done[-2:] == ["release", "failed"] and attaching.reserved == 0


def test_memory_that_never_settles_is_said_in_time() -> None:
    """DISK-03."""
    attaching = Attaching(iter(range(0, 10**9, STEADY_MIB + 1)))
    with pytest.raises(NotSettled):
        attach_settled(attaching, attaching.clock)
    assert attaching.time == DEADLINE_SECONDS and attaching.done[-1] == "failed"


SAMPLES = st.lists(st.tuples(st.floats(0.1, 3), st.integers(0, 100)), max_size=20)


def taken(steps: list[tuple[float, int]]) -> list[Sample]:
    """Samples with the given times between them."""
    at, samples = 0.0, []
    for wait, mib in steps:
        at += wait
        samples.append(Sample(at, mib))
    return samples


@given(SAMPLES)
def test_steady_means_little_movement_for_long_enough(steps: list[tuple[float, int]]) -> None:
    samples = taken(steps)
    if is_steady(samples):
        last = samples[-1]
        assert last.at - samples[0].at >= STEADY_SECONDS
        assert all(
            abs(last.mib - sample.mib) <= STEADY_MIB
            for sample in samples
            if last.at - sample.at <= STEADY_SECONDS
        )
    assert is_steady([*samples, *still(samples[-1].at if samples else 0.0)])


def still(since: float) -> list[Sample]:
    """Memory that does not move, for long enough that what was before no longer counts."""
    return [Sample(since + STEADY_SECONDS + 1 + second, 7) for second in range(7)]


def view_with(maximum_mib: int, current_mib: int) -> VmView:
    memory = VmMemory(maximum_mib=maximum_mib, minimum_mib=256, current_mib=current_mib)
    return make_view(make_spec(memory_mib=maximum_mib), memory=memory)


def test_the_buffer_is_what_the_balloon_holds() -> None:
    """DISK-03: a drive needs all memory of the VM in place."""
    view = view_with(4096, 1024)
    node = make_node(view)
    assert admit_buffer(view, node) == 3072 + OVERHEAD_MIB
    room = node.pool.model_copy(update={"startable_mib": 3072 + OVERHEAD_MIB - 1})
    with pytest.raises(Refusal) as refused:
        admit_buffer(view, node.model_copy(update={"pool": room}))
    assert (refused.value.code, refused.value.wanted) == ("memory_not_free", 3136)


def test_a_stopped_vm_needs_no_buffer() -> None:
    view = make_view(make_spec(state="stopped"))
    with pytest.raises(Refusal) as refused:
        admit_buffer(view, make_node(view))
    assert refused.value.code == "vm_not_running"


def test_large_vms_settle() -> None:
    """DISK-03: equal counts."""
    assert settles(make_spec(memory_mib=LARGE_MIB))
    assert not settles(make_spec(memory_mib=LARGE_MIB - 1))
