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


def test_the_pieces_of_a_moving_vm_are_counted() -> None:
    """NP-03: a disk of 100 GiB would be 200,000 lines; who is refused stands in a line each."""
    log = Kept()
    audit = Audit(log)
    for _ in range(1000):
        for vm in ("web", "db"):
            audit.request(Entry("server", "10.8.0.2", "c0ffee00", "deliver", vm, 200), 0.01)
    for _ in range(3):
        refused = Entry("server", "10.8.0.2", "c0ffee00", "deliver", "web", 409, "ticket_refused")
        audit.request(refused, 0.01)
    assert [line["outcome"] for line in log.lines] == ["accepted"] * 2 + ["refused"] * 3
    audit.flush(WINDOW_SECONDS + 1)
    counted = [(line["vm"], line["client"], line["more"]) for line in log.lines[5:]]
    assert counted == [("web", "server", 999), ("db", "server", 999)]
    audit.request(Entry("server", "10.8.0.2", "c0ffee00", "deliver", "web", 200), 0.01)
    assert log.lines[-1]["event"] == "request"
