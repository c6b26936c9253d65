"""The audit log: a line for each request, and no more than a few for a flood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.host.proxy.audit import MOST_SOURCES, OTHERS, WINDOW_SECONDS, Audit, Entry


class Kept:
    """Keeps the lines that would be written."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})

    warning = info


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, "", "accepted"),
        (400, "request_invalid", "refused"),
        (409, "memory_exhausted", "refused"),
        (503, "agent_unavailable", "failed"),
    ],
)
def test_a_request_is_one_line_with_all_that_is_asked_for(
    status: int, code: str, outcome: str
) -> None:
    """NP-03: client identity, IP, operation, outcome."""
    log = Kept()
    entry = Entry("relay", "10.8.0.1", "c0ffee00", "spawn", "web", status, code)
    Audit(log).request(entry, 0.0123)
    assert log.lines == [
        {
            "event": "request",
            "client": "relay",
            "ip": "10.8.0.1",
            "operation": "spawn",
            "vm": "web",
            "outcome": outcome,
            "status": status,
            "code": code,
            "correlation_id": "c0ffee00",
            "milliseconds": 12.3,
        }
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ringfence", "tls_refused"]), st.integers(1, 5)), min_size=1
    )
)
def test_nobody_who_was_turned_away_is_forgotten(calls: list[tuple[str, int]]) -> None:
    """NP-03: the lines of a window add up to what happened in it."""
    log = Kept()
    audit = Audit(log)
    for reason, host in calls:
        audit.turned_away(reason, f"10.8.0.{host}", 1.0)
    assert len(log.lines) == len(set(calls))
    audit.flush(WINDOW_SECONDS + 2)
    counted = sum(int(str(line.get("more", 1))) for line in log.lines)
    assert counted == len(calls)


def test_a_flood_from_everywhere_writes_a_bounded_number_of_lines() -> None:
    """NP-03: and takes a bounded amount of memory."""
    log = Kept()
    audit = Audit(log)
    for number in range(100_000):
        audit.turned_away("ringfence", f"{number}", 1.0)
    audit.flush(2.0, ending=True)
    assert len(log.lines) == MOST_SOURCES + 2
    assert (log.lines[-1]["ip"], log.lines[-1]["more"]) == (OTHERS, 100_000 - MOST_SOURCES - 1)


def test_a_new_window_tells_the_first_at_once_again() -> None:
    log = Kept()
    audit = Audit(log)
    audit.turned_away("ringfence", "10.8.0.9", 1.0)
    audit.turned_away("ringfence", "10.8.0.9", WINDOW_SECONDS + 1)
    assert [line["event"] for line in log.lines] == ["connection refused"] * 2
