"""The pool's formula."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ppn.pool.policy import pool_available

MIB = st.integers(0, 1 << 24)


def test_pool_of_no_one_and_three_vms() -> None:
    """BAL-07: physical memory less the sum of the minimums."""
    assert pool_available(8192, []) == 8192
    assert pool_available(8192, [512]) == 7680
    assert pool_available(8192, [512, 1024, 0]) == 6656
    assert pool_available(1024, [1024, 512]) == -512


@given(MIB, st.lists(MIB), MIB)
def test_a_vm_takes_its_minimum_and_gives_it_back(
    physical: int, minimums: list[int], one: int
) -> None:
    """BAL-07: each VM counts once, by its minimum alone, in any order."""
    before = pool_available(physical, minimums)
    assert pool_available(physical, [*minimums, one]) == before - one
    assert pool_available(physical, sorted([one, *minimums])) == before - one
    assert pool_available(physical, minimums) + sum(minimums) == physical
