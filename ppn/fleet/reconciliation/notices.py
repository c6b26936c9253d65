"""Which alerts stand, and what each sink is still owed: pure, from one moment to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ppn.fleet.reconciliation.classes import ALERTS_UNTOLD
from ppn.fleet.reconciliation.model import Finding, Key

# Who saw an alert: the watch, every minute, or a reconciliation.
Seer = Literal["watch", "reconciliation"]
# Bounds of what is remembered: alerts that stand, and notices that one sink is owed.
MOST_ACTIVE = 10_000
MOST_PENDING = 2_000
MOST_AT_ONCE = 100
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 3600.0

MANY = Field(strict=False)


class Frozen(BaseModel):
    """A part of what is kept on disk."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Active(Frozen):
    """An alert that stands.

    Args:
        code, subject, node: what makes it one alert.
        message: what is wrong.
        hint: what to do about it.
        since: when it was raised, RFC 3339 in UTC.
        seen_by: who saw it last time they looked; it is cleared once nobody does.
    """

    code: str
    subject: str
    node: str
    message: str
    hint: str
    since: str
    seen_by: Annotated[tuple[Seer, ...], MANY]

    @property
    def key(self) -> Key:
        """What makes it the same alert as another."""
        return Key(self.code, self.subject, self.node)


class Notice(Frozen):
    """What a person is told: an alert was raised, or cleared.

    Args:
        id: the same however often it is delivered.
        event: what became of the alert.
        at: when, RFC 3339 in UTC.
    """

    id: str
    event: Literal["raised", "cleared"]
    at: str
    code: str
    subject: str
    node: str
    message: str
    hint: str


class Owed(Frozen):
    """What one sink is owed.

    Args:
        pending: notices it has not taken yet, the oldest first.
        dropped: older ones that were given up, for there were too many.
        failures: in a row.
        not_before: seconds since 1970 before which it is not tried again.
        error: why it took nothing the last time.
    """

    pending: Annotated[tuple[Notice, ...], MANY] = ()
    dropped: int = 0
    failures: int = 0
    not_before: float = 0.0
    error: str = ""


class State(Frozen):
    """Everything that outlives the process: the alerts that stand, and what each sink is owed."""

    version: Literal[1] = 1
    active: Annotated[tuple[Active, ...], MANY] = ()
    sinks: Mapping[str, Owed] = {}


def with_sinks(state: State, names: Iterable[str], now: str) -> State:
    """The state for the sinks there are: a new one is owed every alert that stands.

    Args:
        state: so far.
        names: of the sinks in the settings.
        now: RFC 3339 in UTC.
    """
    standing = tuple(_notice(one, "raised", now) for one in state.active)
    sinks = {name: state.sinks.get(name) or _owe(Owed(), standing) for name in names}
    return state.model_copy(update={"sinks": sinks})


def told(
    state: State,
    seer: Seer,
    found: Iterable[Finding],
    judged: Callable[[Key], bool],
    now: str,
) -> State:
    """The state after someone has looked: what is new is raised, what is over is cleared.

    Args:
        state: so far.
        seer: who looked.
        found: all that is wrong, as far as they could see.
        judged: whether they could see that an alert is over.
        now: RFC 3339 in UTC.
    """
    seen = {one.key: one for one in found}
    active: list[Active] = []
    notices: list[Notice] = []
    before: Active | None = None
    for one in state.active:
        if one.key == Key(ALERTS_UNTOLD.code, seer):
            before = one
            continue
        finding = seen.pop(one.key, None)
        if finding is not None:
            one = _seen(one, seer, finding)
        elif judged(one.key):
            one = _unseen(one, seer)
        if one.seen_by:
            active.append(one)
        else:
            notices.append(_notice(one, "cleared", now))
    room = max(MOST_ACTIVE - len(active), 0)
    for finding in list(seen.values())[:room]:
        new = _raised(finding, seer, now)
        active.append(new)
        notices.append(_notice(new, "raised", now))
    untold, said = _untold(before, len(seen) - room, seer, now)
    active += untold
    notices += said
    sinks = {name: _owe(owed, notices) for name, owed in state.sinks.items()}
    return state.model_copy(update={"active": tuple(active), "sinks": sinks})


def batch(owed: Owed, now: float) -> tuple[Notice, ...]:
    """What to deliver to a sink now: nothing while it rests after a failure.

    Args:
        owed: to that sink.
        now: seconds since 1970.
    """
    # A clock that was set back must not keep a sink at rest.
    resting = now < owed.not_before <= now + LONGEST_PAUSE_SECONDS
    return () if resting else owed.pending[:MOST_AT_ONCE]


def delivered(owed: Owed, count: int) -> Owed:
    """What is still owed after the first so many notices were taken."""
    return Owed(pending=owed.pending[count:])


def failed(owed: Owed, error: str, now: float) -> Owed:
    """What is owed after a sink took nothing: the same, after a pause that doubles each time.

    Args:
        owed: to that sink.
        error: why.
        now: seconds since 1970.
    """
    pause = min(FIRST_PAUSE_SECONDS * 2 ** min(owed.failures, 16), LONGEST_PAUSE_SECONDS)
    changes = {"failures": owed.failures + 1, "not_before": now + pause, "error": error[:500]}
    return owed.model_copy(update=changes)


def _owe(owed: Owed, notices: Iterable[Notice]) -> Owed:
    pending = (*owed.pending, *notices)
    over = max(len(pending) - MOST_PENDING, 0)
    return owed.model_copy(update={"pending": pending[over:], "dropped": owed.dropped + over})


def _untold(
    before: Active | None, count: int, seer: Seer, now: str
) -> tuple[tuple[Active, ...], tuple[Notice, ...]]:
    """The alert that so many others are not remembered, and what is told of it.

    Args:
        before: that alert, where it stands.
        count: of the others; none for 0 and less.
        seer: who looked; each has an alert of its own.
        now: RFC 3339 in UTC.
    """
    if count <= 0:
        return (), () if before is None else (_notice(before, "cleared", now),)
    text = f"{count} more things are wrong than the {MOST_ACTIVE} alerts that are remembered"
    finding = ALERTS_UNTOLD.of(seer, "", text)
    if before is not None:
        return (_seen(before, seer, finding),), ()
    new = _raised(finding, seer, now)
    return (new,), (_notice(new, "raised", now),)


def _raised(finding: Finding, seer: Seer, now: str) -> Active:
    return Active(
        code=finding.code,
        subject=finding.subject,
        node=finding.node,
        message=finding.message,
        hint=finding.hint,
        since=now,
        seen_by=(seer,),
    )


def _seen(one: Active, seer: Seer, finding: Finding) -> Active:
    seen_by = tuple(sorted({*one.seen_by, seer}))
    changes = {"seen_by": seen_by, "message": finding.message, "hint": finding.hint}
    return one.model_copy(update=changes)


def _unseen(one: Active, seer: Seer) -> Active:
    return one.model_copy(
        update={"seen_by": tuple(other for other in one.seen_by if other != seer)}
    )


def _notice(one: Active, event: Literal["raised", "cleared"], now: str) -> Notice:
    return Notice(
        id=_id(one, event, now),
        event=event,
        at=now,
        code=one.code,
        subject=one.subject,
        node=one.node,
        message=one.message,
        hint=one.hint,
    )


def _id(one: Active, event: str, now: str) -> str:
    parts = (event, now, one.code, one.subject, one.node)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
