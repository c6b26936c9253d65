"""Alerts: once each while they stand, once more when they are over, and never lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.fleet.reconciliation import notices
from ppn.fleet.reconciliation.model import ControllerLook, Finding, Gap, Key, Kind
from ppn.fleet.reconciliation.notices import Notice, Seer, State, batch, delivered, failed, told
from ppn.fleet.reconciliation.watching import run_judges, watch_judges, watched
from tests.unit.reconciliation.builders import POOL, alert, node_report

NOW = "2026-11-21T12:00:00+00:00"
GHOST = Finding("ghost_record", "vm-web", "", "no node has it", "destroy it")
GONE = Finding("qemu_gone", "web", "server", "it ended", "start it")
EMPTY = notices.with_sinks(State(), ["log"], NOW)


def always(_: Key) -> bool:
    return True


def never(_: Key) -> bool:
    return False


def events(state: State, sink: str = "log") -> list[tuple[str, str]]:
    """What a sink is owed."""
    return [(one.event, one.code) for one in state.sinks[sink].pending]


def test_one_notice_however_often_it_is_seen() -> None:
    """REC-03."""
    state = EMPTY
    for _ in range(5):
        state = told(state, "watch", [GONE], always, NOW)
    assert events(state) == [("raised", "qemu_gone")]
    state = told(state, "watch", [], always, NOW)
    assert events(state) == [("raised", "qemu_gone"), ("cleared", "qemu_gone")]
    assert state.active == ()


def test_two_who_see_it_are_one_alert_until_neither_does() -> None:
    """REC-03."""
    state = told(EMPTY, "watch", [GONE], always, NOW)
    state = told(state, "reconciliation", [GONE], always, NOW)
    state = told(state, "watch", [], always, NOW)
    assert events(state) == [("raised", "qemu_gone")]
    state = told(state, "reconciliation", [], always, NOW)
    assert events(state)[-1] == ("cleared", "qemu_gone")


def test_what_could_not_be_judged_is_not_over() -> None:
    state = told(EMPTY, "watch", [GONE, GHOST], always, NOW)
    assert told(state, "watch", [], never, NOW) == state
    # And one seer never clears what the other one alone can see.
    state = told(EMPTY, "reconciliation", [GHOST], always, NOW)
    assert told(state, "watch", [], always, NOW).active == state.active


def test_a_new_sink_is_owed_what_stands() -> None:
    state = told(EMPTY, "watch", [GONE], always, NOW)
    both = notices.with_sinks(state, ["log", "mail"], NOW)
    assert events(both, "mail") == events(both, "log") == [("raised", "qemu_gone")]
    assert set(notices.with_sinks(both, ["mail"], NOW).sinks) == {"mail"}


def test_the_queue_is_bounded_and_says_what_it_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """REC-03: the oldest go, and their number is told."""
    monkeypatch.setattr(notices, "MOST_PENDING", 3)
    found = [replace(GONE, subject=f"vm-{number}") for number in range(5)]
    owed = told(EMPTY, "watch", found, always, NOW).sinks["log"]
    assert [one.subject for one in owed.pending] == ["vm-2", "vm-3", "vm-4"]
    assert owed.dropped == 2
    assert delivered(owed, 2).dropped == 0
    assert [one.subject for one in delivered(owed, 2).pending] == ["vm-4"]


def test_more_alerts_than_are_remembered_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST_ACTIVE", 1)
    for _ in range(2):
        state = told(EMPTY, "watch", [GONE, GHOST], always, NOW)
        assert events(state) == [("raised", "qemu_gone"), ("raised", "alerts_untold")]
    assert state.active[-1].message.startswith("1 more things are wrong")
    # Who sees less cannot say that it is over.
    assert events(told(state, "reconciliation", [], always, NOW)) == events(state)
    state = told(state, "watch", [GHOST], always, NOW)
    assert events(state)[2:] == [
        ("cleared", "qemu_gone"),
        ("raised", "ghost_record"),
        ("cleared", "alerts_untold"),
    ]


def test_a_sink_that_fails_rests_longer_each_time() -> None:
    """REC-03: and is owed the same for as long as it takes."""
    owed = told(EMPTY, "watch", [GONE], always, NOW).sinks["log"]
    pauses, now = [], 1000.0
    for _ in range(10):
        assert len(batch(owed, now)) == 1
        owed = failed(owed, "refused", now)
        assert batch(owed, now) == ()
        pauses.append(owed.not_before - now)
        now = owed.not_before
    assert pauses[:3] == [30.0, 60.0, 120.0] and pauses[-1] == 3600.0
    assert owed.pending and owed.failures == 10 and owed.error == "refused"
    # A clock that was set back by a year silences nobody.
    assert len(batch(owed, now - 365 * 86400)) == 1


LOOKS = st.lists(
    st.tuples(
        st.sampled_from(["watch", "reconciliation"]),
        st.frozensets(st.sampled_from("abcd")),
        st.frozensets(st.sampled_from("abcd")),
    ),
    max_size=30,
)


@given(LOOKS)
def test_each_alert_is_raised_and_cleared_in_turn(
    looks: list[tuple[Seer, frozenset[str], frozenset[str]]],
) -> None:
    """REC-03: for any looks, and whatever each of them could not judge."""
    state = EMPTY
    for number, (seer, seen, judged) in enumerate(looks):
        found = [replace(GONE, subject=letter) for letter in sorted(seen)]
        known = {Key(GONE.code, letter, GONE.node) for letter in judged}
        state = told(state, seer, found, known.__contains__, f"{NOW}{number}")
        assert {one.subject for one in state.active} >= seen
    pending = state.sinks["log"].pending
    for letter in "abcd":
        its = [one.event for one in pending if one.subject == letter]
        assert its == [("raised", "cleared")[turn % 2] for turn in range(len(its))]
        stands = letter in {one.subject for one in state.active}
        assert stands == (len(its) % 2 == 1)
    assert len({one.id for one in pending}) == len(pending)
    assert State.model_validate_json(state.model_dump_json()) == state


def look(*nodes: str, alerts: tuple[str, ...] = (), stale: tuple[str, ...] = ()) -> ControllerLook:
    """A controller that hears these nodes, each with the same alerts."""
    told_by = tuple(alert(code) for code in alerts)
    heard = tuple(node_report(name, *told_by) for name in nodes)
    lost = tuple(node_report(name, *told_by, stale=True) for name in stale)
    silent = tuple(alert("node_stale", name) for name in stale)
    return ControllerLook("http://10.8.0.1:9203", nodes=heard + lost, alerts=silent)


def test_the_watch_passes_on_what_a_node_says() -> None:
    """HLT-06: once, however many controllers hear it."""
    one = look("server", alerts=("qemu_gone",))
    assert [found.key for found in watched((one, one), ())] == [Key("qemu_gone", "web", "server")]


def test_the_newest_word_of_a_node_counts() -> None:
    old = ControllerLook("a", nodes=(node_report("server", alert("qemu_gone"), age=25.0),))
    new = ControllerLook("b", nodes=(node_report("server", age=2.0),))
    assert watched((old, new), ()) == watched((new, old), ()) == ()


def test_a_silent_controller_is_an_alert_and_hides_nothing() -> None:
    gap = Gap("controller", "http://10.8.0.2:9203", "no answer")
    (found,) = watched((look("server"),), (gap,))
    assert found.key == Key("controller_silent", "http://10.8.0.2:9203")
    assert watch_judges(found.key, (), (gap,), ("server",))
    # With no controller left, nothing else can be said to be over.
    assert not watch_judges(GONE.key, (), (gap,), ("server",))
    assert not watch_judges(Key("vm_doubled", "web"), (), (gap,), ("server",))
    # What is of the pool may be the silent one's own word; what is of a node, the node says.
    for key in (Key("vm_doubled", "web"), Key("node_unheard", "server", "server")):
        assert not watch_judges(key, (look("server"),), (gap,), ("server",))
        assert watch_judges(key, (look("server"),), (), ("server",))
    assert watch_judges(GONE.key, (look("server"),), (gap,), ("server",))


def test_what_a_stale_node_said_last_still_stands() -> None:
    looks = (look("laptop", stale=("server",)),)
    assert {one.key for one in watched(looks, ())} == {Key("node_stale", "server", "server")}
    assert not watch_judges(GONE.key, looks, (), ("server", "laptop"))
    assert watch_judges(GONE.key, (look("server"),), (), ("server",))
    # A node that has left the inventory has no alerts.
    assert watch_judges(GONE.key, looks, (), ("laptop",))


def test_a_run_clears_only_what_it_read() -> None:
    known = Key("size_wrong", "vm-web", "server")
    assert run_judges(known, POOL) and run_judges(Key("ghost_record", "x"), POOL)
    kinds: tuple[Kind, ...] = ("node", "controller", "tenant proxy")
    for kind in kinds:
        views = replace(POOL, gaps=(Gap(kind, "laptop", "no answer"),))
        assert not run_judges(Key("ghost_record", "x"), views)
        assert run_judges(known, views) == (kind == "node")
        assert run_judges(Key("source_unreadable", "node laptop", "laptop"), views)
    assert not run_judges(known, replace(POOL, nodes=POOL.nodes[1:]))


def test_a_notice_says_all_a_person_needs() -> None:
    (one,) = told(EMPTY, "watch", [GONE], always, NOW).sinks["log"].pending
    assert one == Notice(
        id=one.id,
        event="raised",
        at=NOW,
        code="qemu_gone",
        subject="web",
        node="server",
        message="it ended",
        hint="start it",
    )
