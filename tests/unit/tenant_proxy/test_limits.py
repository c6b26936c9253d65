"""Rates and turns: so much of each caller, and no caller at another's cost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.tenant.limits import CALLERS_KEPT, Bucket, Lanes, Rates

STEPS = st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=200)


@given(
    st.floats(min_value=0.1, max_value=1000),
    st.integers(min_value=1, max_value=100),
    STEPS,
)
def test_no_window_lets_more_through_than_its_rate(
    rate: float, burst: int, steps: list[float]
) -> None:
    """TEN-09: from any request to any other, at most the burst and what came back meanwhile."""
    bucket = Bucket(rate, burst, burst, 0.0)
    now, taken = 0.0, []
    for step in steps:
        now += step
        if bucket.take(now) == 0:
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = burst + (taken[last] - taken[first]) * rate
            assert last - first + 1 <= most + 1e-6 * most + 1e-6


@given(st.floats(min_value=0.1, max_value=1000), st.integers(min_value=1, max_value=100))
def test_who_waits_as_long_as_told_is_let_through(rate: float, burst: int) -> None:
    bucket = Bucket(rate, burst, burst, 0.0)
    while (wait := bucket.take(0.0)) == 0:
        continue
    assert 0 < wait <= 1 / rate
    assert bucket.take(wait * 1.000001) == 0


def test_one_callers_rate_is_no_others() -> None:
    """TEN-09: and those remembered are bounded."""
    rates = Rates(1.0, 2, lambda: 0.0)
    rates.check("acme")
    rates.check("acme")
    with pytest.raises(Refusal) as caught:
        rates.check("acme")
    assert caught.value.code == "rate_limited"
    for number in range(2 * CALLERS_KEPT):
        rates.check(f"other-{number}")
    assert len(rates.buckets) == CALLERS_KEPT


def test_a_tenants_turns_are_bounded_and_no_others() -> None:
    """TEN-09: two at once, one waiting, the next refused; another tenant passes meanwhile."""

    async def scene() -> None:
        lanes = Lanes(at_once=2, waiting=1, seconds=30)
        leave = asyncio.Event()
        inside: list[int] = []

        async def visit(number: int) -> None:
            async with lanes.turn("acme"):
                inside.append(number)
                await leave.wait()

        visits = [asyncio.create_task(visit(number)) for number in range(4)]
        done, _ = await asyncio.wait(visits, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert isinstance(error := refused.exception(), Refusal)
        assert error.code == "too_many_at_once" and inside == [0, 1]
        async with lanes.turn("other"):
            assert set(lanes.lanes) == {"acme", "other"}
        leave.set()
        await asyncio.gather(*(visit for visit in visits if visit is not refused))
        assert inside == [0, 1, 2] and lanes.lanes == {}

    asyncio.run(scene())


def test_who_waits_too_long_is_told_so() -> None:
    async def scene() -> None:
        lanes = Lanes(at_once=1, waiting=1, seconds=0.01)
        async with lanes.turn("acme"):
            with pytest.raises(Refusal, match="too_many_at_once"):
                async with lanes.turn("acme"):
                    raise AssertionError("let in")
        async with lanes.turn("acme"):
            pass
        assert lanes.lanes == {}

    asyncio.run(scene())
