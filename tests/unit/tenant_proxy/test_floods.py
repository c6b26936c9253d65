"""Refusals without end: each is in the audit log, and the log does not grow with them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.audit.entry import encode
from ppn.tenant.floods import CALLERS_KEPT, FIRST, FIRST_OF, SECONDS, Floods
from ppn.tenant.guard import Visit
from ppn.tenant.settings import Limits

CODES = [*sorted(FIRST_OF), "quota_exceeded", "vm_unknown"]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(CODES),
        st.sampled_from(["10.8.0.200", "10.8.0.201"]),
        st.floats(min_value=0, max_value=40),
    ),
    max_size=300,
)


def visit(source: str = "10.8.0.200") -> Visit:
    """A refused request."""
    return Visit("create", source, "correlation-1")


@given(STEPS)
def test_every_refusal_is_counted_once(steps: list[tuple[str, str, float]]) -> None:
    """TEN-10: by an entry of its own or in the one that is written when its interval is over."""
    now = 0.0
    floods = Floods(lambda: now)
    seen: Counter[tuple[str, str]] = Counter()
    expected: Counter[tuple[str, str]] = Counter()
    for code, source, pause in steps:
        now += pause
        expected[code, source] += 1
        if floods.stands_alone(visit(source), code):
            seen[code, source] += 1
        for entry in floods.due():
            seen[entry.code, entry.source] += entry.count
    for entry in floods.due(now=True):
        assert encode(entry)
        seen[entry.code, entry.source] += entry.count
    assert seen == expected
    assert not list(floods.due(now=True))


@pytest.mark.parametrize(("code", "first"), [*FIRST_OF.items(), ("quota_exceeded", FIRST)])
def test_the_first_ones_are_written_and_then_one_a_minute(code: str, first: int) -> None:
    """TEN-10: of a flood that goes on, and anew after a quiet time."""
    now = 0.0
    floods = Floods(lambda: now)
    alone = [floods.stands_alone(visit(), code) for _ in range(10_000)]
    assert alone.count(True) == first and all(alone[:first])
    assert not list(floods.due())
    now = SECONDS
    (entry,) = floods.due()
    assert (entry.count, entry.code, entry.source) == (10_000 - first, code, "10.8.0.200")
    assert floods.stands_alone(visit(), code)


def test_a_day_at_the_full_rate_leaves_few_entries() -> None:
    """TEN-10: of millions of refusals, each counted, no disk gets full."""
    now = 0.0
    floods = Floods(lambda: now)
    entries, counted, seconds = 0, 0, 600
    rate = int(Limits().rate)
    for number in range(seconds * rate):
        now = number / rate
        alone = floods.stands_alone(visit(), "vm_unknown")
        shared = list(floods.due())
        entries += alone + len(shared)
        counted += alone + sum(one.count for one in shared)
    shared = list(floods.due(now=True))
    assert counted + sum(one.count for one in shared) == seconds * rate
    assert (entries + len(shared)) * 144 <= 31_000


def test_another_callers_flood_hides_nothing() -> None:
    """TEN-10: nor does another reason."""
    floods = Floods(lambda: 0.0)
    for _ in range(100):
        floods.stands_alone(visit(), "token_refused")
    assert floods.stands_alone(visit("10.8.0.201"), "token_refused")
    assert floods.stands_alone(visit(), "too_many_at_once")
    assert all(floods.stands_alone(visit(), "quota_exceeded") for _ in range(FIRST))


@pytest.mark.parametrize("code", CODES)
def test_callers_are_bounded_and_none_is_lost(code: str) -> None:
    """TEN-10: more than are told apart are counted together."""
    floods = Floods(lambda: 0.0)
    many = 2 * CALLERS_KEPT
    alone = sum(floods.stands_alone(visit(f"source-{number}"), code) for number in range(many))
    assert len(floods.tallies) == CALLERS_KEPT + 1
    assert alone + sum(entry.count for entry in floods.due(now=True)) == many
