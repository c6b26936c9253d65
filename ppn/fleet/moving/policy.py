"""What is next in a move, from what its two nodes say: pure.

The nodes' sidecars hold all that matters (see `ppn.host.moving.policy`); a controller only says
what is next. So it may die at any point, look later than it should, or be one of two: each step is
judged again by the node it is for, and done once.

    both know nothing     prepare the destination, then have the source depart
    the source departs    wait; tell whoever has stopped working to go on
    sent and verified     the source commits: from here on the move only goes forward
    committed             the destination settles, then the source releases
    anything fails before the source goes back, then the destination drops
    one side was removed  nothing, until an operator says who shall have the VM (`ends`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ppn.errors import Refusal
from ppn.wire.moving import MoveView

# A node has not said how far it is; or its VM is in no move, or in another one.
Unknown = Literal["unknown"]
Elsewhere = Literal["here", "gone"]
# Who has the VM in the end of a move that is lost.
Keep = Literal["source", "destination", "neither"]
SOURCE_WORK = frozenset({"stopping", "copying", "sending", "sent"})
ARRIVING = frozenset({"receiving", "verifying", "verified"})


class Next(StrEnum):
    """What a controller does next about a move."""

    WAIT = "wait"
    PREPARE = "prepare"
    DEPART = "depart"
    COMMIT = "commit"
    SETTLE = "settle"
    RELEASE = "release"
    RECLAIM = "reclaim"
    BACK = "back"
    DROP = "drop"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True)
class Side:
    """One node in a move.

    Args:
        stage: see `ppn.wire.moving.Stage`; `unknown` when it does not say, and `here` also when
            its VM is in another move.
        active: something works there.
        settled: the VM is there as it shall be.
    """

    stage: str
    active: bool = False
    settled: bool = False


@dataclass(frozen=True)
class Will:
    """What a controller wants of a move.

    Args:
        back: it is given up, if that is possible still.
        rest: the VM may stay as it is where it ended up, though it could not be started.
        taken: the destination was seen to have the VM, so that it needs nothing of the source.
        keep: which side an operator has said shall have the VM, should the move be lost.
    """

    back: bool = False
    rest: bool = False
    taken: bool = False
    keep: Keep | None = None


UNKNOWN = Side("unknown")
GONE = Side("gone")
SOURCE_KEEPS = Side("moved")


def side_of(view: MoveView | None, move: str) -> Side:
    """A node's part in one move.

    Args:
        view: what it says; None when it does not say.
        move: the move's id.
    """
    if view is None:
        return UNKNOWN
    if view.stage == "gone":
        return GONE
    if view.move != move:
        return Side("here")
    return Side(view.stage, view.active, view.settled)


def decide(source: Side, destination: Side, will: Will) -> Next:
    """What is next in a move.

    Args:
        source: the node the VM comes from.
        destination: the node it goes to.
        will: what is wanted.
    """
    match source.stage:
        case "unknown":
            return Next.WAIT
        case "moved":
            return _forward(destination, will)
        case "gone":
            return _gone(destination, will)
        case "back":
            return _ended(source, destination, will)
        case "here":
            return _begin(destination, will)
        case _:
            return _send(source, destination, will)


def _forward(destination: Side, will: Will) -> Next:
    """The VM is given up at its source: it is taken over, and then what is left is removed."""
    if destination.stage == "unknown":
        return Next.WAIT
    if destination.stage == "settled":
        return Next.RELEASE if destination.settled or will.rest else Next.SETTLE
    if destination.stage == "verified":
        return Next.SETTLE
    # Whoever had it there may have removed it since; else what the source keeps is all there is.
    # One that receives was removed too: room for it is kept anew, by an order that came late.
    return Next.RELEASE if will.taken else _lost(SOURCE_KEEPS, destination, will)


def _ended(source: Side, destination: Side, will: Will) -> Next:
    """The VM stays at its source."""
    if not (source.settled or will.rest):
        return Next.BACK
    if destination.stage == "unknown":
        return Next.WAIT
    return Next.DROP if destination.stage in ARRIVING else Next.FAILED


def _begin(destination: Side, will: Will) -> Next:
    """The source has done nothing yet."""
    if will.back:
        # Also what is on its way to it still must not begin it.
        return Next.BACK
    if destination.stage == "unknown":
        return Next.WAIT
    return Next.DEPART if destination.stage in ARRIVING else Next.PREPARE


def _send(source: Side, destination: Side, will: Will) -> Next:
    """The source has stopped the VM and sends it."""
    if destination.stage == "settled":
        # An operator said that it should, while the source was not of the pool: never both.
        return Next.LOST
    if will.back:
        return Next.BACK
    if source.stage == "sent" and not source.active and destination.stage == "verified":
        return Next.COMMIT
    if destination.stage == "unknown":
        return Next.WAIT
    if destination.stage not in ARRIVING:
        # It has lost what was kept for the VM.
        return Next.BACK
    if not destination.active and destination.stage != "verified":
        return Next.PREPARE
    return Next.WAIT if source.active else Next.DEPART


def _gone(destination: Side, will: Will) -> Next:
    """The source has nothing of it: the destination had it first, or another hand removed it."""
    if will.taken or destination.stage in ("settled", "here"):
        # In another move, or after one, it is the destination's own as well.
        return Next.DONE
    match destination.stage:
        case "unknown":
            return Next.WAIT
        case "verified":
            # All of it is there, and nobody knows whether it was given up.
            return _lost(GONE, destination, will)
        case "gone":
            return Next.FAILED
        case _:
            # It was never given up, so it was removed before or while it was sent.
            return Next.DROP


def ends(source: Side, destination: Side) -> Mapping[Keep, Next]:
    """How an operator may end a move that is lost: who has the VM then, and the step to it.

    None of them lets both sides run the VM: one that is to have it is one that keeps all of it,
    while the other has nothing that could run, or a VM of its own that stays.

    Args:
        source: the node the VM comes from.
        destination: the node it goes to.

    Returns:
        Nothing where no person is needed, or none can help.
    """
    match source.stage, destination.stage:
        case "moved", "gone" | "receiving" | "verifying":
            return {"source": Next.RECLAIM, "neither": Next.RELEASE}
        case "moved", "here":
            return {"destination": Next.RELEASE}
        case "gone", "verified":
            return {"destination": Next.SETTLE, "neither": Next.DROP}
    return {}


def _lost(source: Side, destination: Side, will: Will) -> Next:
    """What an operator said, if it was about this; else nothing until one does."""
    if will.keep is None:
        return Next.LOST
    return ends(source, destination).get(will.keep, Next.LOST)


def committed(vm: str, node: str) -> Refusal:
    """The refusal to take back a move that has passed its one point of no return.

    Args:
        vm: whose.
        node: where it is now.
    """
    return Refusal(
        f"vm {vm} is {node}'s already: its move cannot be taken back",
        code="move_committed",
        constraint="move of a VM",
        hint="let it end, then move the VM back",
    )
