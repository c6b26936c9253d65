"""When a peer's addresses move to its direct tunnel and back: a pure state machine (MESH-06).

WireGuard drops a packet whose source address belongs to another tunnel of the receiver. While one
end uses the direct tunnel and the other the relay, both directions are therefore cut. So the two
ends must agree, and must move at nearly the same moment. This is how:

* Each end sends probes through the direct tunnel, from probe address to probe address. A probe
  tells the phase of its sender, and echoes the receiver's session if the sender has heard it lately
  (as BFD does): receiving an echo of one's own session is evidence in both directions.
* RELAY -> READY: two-way evidence lasted for `steady` seconds without a gap, and the hold-down of
  earlier failures is over. Either end may be READY for a while without the other.
* READY -> DIRECT: one end leads (the one with the lower probe address). When it is READY and hears
  READY, it moves, and repeats its new phase at the `fast` pace. The other moves when it hears that,
  and answers at once. They disagree for one one-way delay, plus `fast` for each lost probe. What is
  on its way through the relay meanwhile is lost: about one round trip of traffic.
* If the leader hears no DIRECT within `confirm` seconds it goes back.
* DIRECT -> RELAY: no two-way evidence for `loss` seconds, or the other end says that it is not
  DIRECT any more. Each says so at once and repeats it, so when one direction still works both move
  within a one-way delay. When neither does, they move at most one `interval` and one delay apart.
* Each failure doubles the hold-down, up to `hold_limit`; a long calm time on the direct path
  forgets them.

Old probes cannot move anybody: sequence numbers only grow within a session, and sessions within
the time a peer is remembered. Whatever is lost, delayed, doubled or reordered, the ends disagree
for at most `loss` + `interval` + the longest delay.

With the default timing, eight probes in a row must be lost in one direction to leave a good path:
at 20 % random loss about once a day, at 10 % about once a year.

Time is seconds of any clock that does not jump, passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum


class Phase(IntEnum):
    """Where an end is; the numbers are those of the wire format."""

    RELAY = 0
    READY = 1
    DIRECT = 2


@dataclass(frozen=True)
class Timing:
    """All times of the policy, in seconds.

    Args:
        interval: between probes.
        fast: between probes while a change of phase is made known.
        gap: two-way evidence with a longer gap does not count as lasting.
        steady: how long two-way evidence must last before the direct path is used.
        lapse: without two-way evidence for this long, READY ends.
        loss: without two-way evidence for this long, DIRECT ends.
        confirm: how long the leader waits for the other end to follow.
        hold: hold-down after the first failure; doubled by each further one.
        hold_limit: the longest hold-down.
        calm: time on the direct path after which failures are forgotten.
    """

    interval: float = 0.5
    fast: float = 0.1
    gap: float = 0.75
    steady: float = 1.0
    lapse: float = 2.0
    loss: float = 4.0
    confirm: float = 1.0
    hold: float = 2.0
    hold_limit: float = 60.0
    calm: float = 120.0


TIMING = Timing()
# How often a change of phase is said at the fast pace.
REPEATS = 4


@dataclass(frozen=True)
class Probe:
    """What one end tells the other.

    Args:
        phase: of the sender.
        session: of the sender; grows with each start of its keeper, never 0.
        sequence: grows with each probe of the session.
        echo: the receiver's session, if the sender heard it lately; else 0.
    """

    phase: Phase
    session: int
    sequence: int
    echo: int


@dataclass(frozen=True)
class Link:
    """One end's view of a direct path.

    Args:
        leads: whether this end decides when both move.
        session: of this end.
        phase: where this end is.
        since: when it came there.
        confirmed: whether the other end is known to have moved to DIRECT with us.
        sequence: of the last probe sent.
        due: when the next probe is to be sent.
        repeats: how many probes are still to be sent at the fast pace.
        peer_session, peer_sequence: of the newest probe received; 0 before the first.
        heard: when that was.
        evidence: when the newest probe with our echo was received.
        good_since: since when evidence has had no gap.
        failures: how often DIRECT ended, until forgotten.
        held_until: the end of the hold-down.
    """

    leads: bool
    session: int
    phase: Phase = Phase.RELAY
    since: float = 0.0
    confirmed: bool = False
    sequence: int = 0
    due: float = 0.0
    repeats: int = 0
    peer_session: int = 0
    peer_sequence: int = 0
    heard: float | None = None
    evidence: float | None = None
    good_since: float | None = None
    failures: int = 0
    held_until: float = 0.0

    @property
    def is_direct(self) -> bool:
        """Whether the peer's addresses belong to the direct tunnel at this end."""
        return self.phase is Phase.DIRECT


def received(link: Link, probe: Probe, now: float, timing: Timing = TIMING) -> Link:
    """The link after a probe arrived; if `due` is `now`, there is an answer to send."""
    if not _is_news(link, probe, now, timing):
        return link
    two_way = probe.echo == link.session
    link = replace(
        link,
        peer_session=probe.session,
        peer_sequence=probe.sequence,
        heard=now,
        evidence=now if two_way else link.evidence,
        good_since=_good_since(link, now, timing) if two_way else None,
    )
    if link.phase is Phase.DIRECT:
        return _heard_in_direct(link, probe, now, timing)
    if link.phase is Phase.RELAY and _is_ready(link, now, timing):
        link = _move(link, Phase.READY, now)
    if link.phase is Phase.READY and two_way:
        if link.leads and probe.phase is Phase.READY:
            return _move(link, Phase.DIRECT, now)
        if not link.leads and probe.phase is Phase.DIRECT:
            return replace(_move(link, Phase.DIRECT, now), confirmed=True)
    if probe.phase is Phase.DIRECT:
        # It believes us to be there too; every moment of that is lost traffic.
        return replace(link, due=now)
    return link


def ticked(link: Link, now: float, timing: Timing = TIMING) -> Link:
    """The link after time passed; call it at least whenever `due` is reached."""
    silent = now - link.evidence if link.evidence is not None else float("inf")
    if link.phase is Phase.DIRECT:
        unanswered = not link.confirmed and now - link.since >= timing.confirm
        if silent >= timing.loss or unanswered:
            return fallen_back(link, now, timing)
        if link.failures and now - link.since >= timing.calm:
            return replace(link, failures=0)
    elif link.phase is Phase.READY and silent >= timing.lapse:
        return _move(link, Phase.RELAY, now)
    return link


def sent(link: Link, now: float, timing: Timing = TIMING) -> tuple[Link, Probe]:
    """The probe that is due, and the link once it is on its way."""
    fresh = link.heard is not None and now - link.heard < timing.loss
    probe = Probe(link.phase, link.session, link.sequence + 1, link.peer_session if fresh else 0)
    unconfirmed = link.phase is Phase.DIRECT and not link.confirmed
    pace = timing.fast if link.repeats or unconfirmed else timing.interval
    return replace(
        link,
        sequence=probe.sequence,
        due=now + pace,
        repeats=max(0, link.repeats - 1),
    ), probe


def fallen_back(link: Link, now: float, timing: Timing = TIMING) -> Link:
    """The link after the direct path failed: on the relay, and held there for a while."""
    hold = min(timing.hold * 2.0 ** min(link.failures, 16), timing.hold_limit)
    return replace(
        _move(link, Phase.RELAY, now),
        good_since=None,
        failures=link.failures + 1,
        held_until=now + hold,
    )


def _heard_in_direct(link: Link, probe: Probe, now: float, timing: Timing) -> Link:
    if probe.phase is Phase.DIRECT:
        return replace(link, confirmed=True)
    if probe.phase is Phase.READY and not link.confirmed:
        return link
    return fallen_back(link, now, timing)


def _is_news(link: Link, probe: Probe, now: float, timing: Timing) -> bool:
    """Whether a probe is newer than all before, or the peer was forgotten meanwhile."""
    if probe.session == link.peer_session:
        return probe.sequence > link.peer_sequence
    forgotten = link.heard is None or now - link.heard >= timing.loss
    return probe.session > link.peer_session or forgotten


def _good_since(link: Link, now: float, timing: Timing) -> float:
    """Since when evidence lasts, given that there is some now."""
    if link.good_since is None or link.evidence is None or now - link.evidence > timing.gap:
        return now
    return link.good_since


def _is_ready(link: Link, now: float, timing: Timing) -> bool:
    lasting = link.good_since is not None and now - link.good_since >= timing.steady
    return lasting and now >= link.held_until


def _move(link: Link, phase: Phase, now: float) -> Link:
    """The link in another phase, which is to be made known at once and repeatedly."""
    return replace(link, phase=phase, since=now, confirmed=False, due=now, repeats=REPEATS)
