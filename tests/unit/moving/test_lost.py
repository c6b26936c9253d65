"""Moves that only a person can end: what may be said, what is then done, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import PpnError, Refusal
from ppn.fleet.moving import drive as drive_module
from ppn.fleet.moving import lost as lost_module
from ppn.fleet.moving.lost import Found, LostMoves, judge
from ppn.fleet.moving.policy import Keep, Next, Side, Will, decide, ends
from ppn.fleet.nodes import Call, NodeUnreachable
from ppn.host.moving import policy
from ppn.wire.fleet import EndOrder, LostMove, MoveReport
from ppn.wire.moving import MoveView, Stage
from tests.examples import examples
from tests.unit.fleet.builders import report
from tests.unit.moving.controller import INTENT, Moving, view
from tests.unit.moving.test_safety import EVENTS, bring_to_its_end, happen
from tests.unit.moving.world import MOVE, VM, World, new_world

KEEPS: tuple[Keep, ...] = get_args(Keep)
SIDES = st.builds(
    Side,
    st.sampled_from([*get_args(Stage), "unknown"]),
    active=st.booleans(),
    settled=st.booleans(),
)
WILLS = st.builds(Will, st.booleans(), st.booleans(), st.booleans())
MOVED, VERIFIED = view("moved", move=MOVE), view("verified", move=MOVE, peer="a")
GONE = view("gone", peer="")
# Another hand removed it where it went, and an order that came late had room kept anew.
ROOM = view("receiving", move=MOVE, peer="a")
THEIRS = view("here", peer="", report=report(VM))


@given(SIDES, SIDES, WILLS, st.sampled_from(KEEPS))
def test_what_an_operator_says_counts_for_a_lost_move_alone(
    source: Side, destination: Side, will: Will, keep: Keep
) -> None:
    """MIG-01: whatever was said, the nodes' own knowledge goes first."""
    before = decide(source, destination, will)
    said = decide(source, destination, Will(will.back, will.rest, will.taken, keep))
    possible = ends(source, destination)
    wanted = possible.get(keep, before) if before is Next.LOST else before
    assert said is wanted


@given(SIDES, SIDES)
def test_no_end_lets_both_sides_run_it(source: Side, destination: Side) -> None:
    """MIG-01: one side keeps all of it; the other has nothing, or a VM of its own that stays."""
    for keep, step in ends(source, destination).items():
        if keep == "source":
            assert (source.stage, step) == ("moved", Next.RECLAIM)
            assert destination.stage in ("gone", "receiving", "verifying")
        elif keep == "destination":
            assert step is (Next.RELEASE if source.stage == "moved" else Next.SETTLE)
            assert step is Next.RELEASE or source.stage == "gone"
        else:
            assert step in (Next.RELEASE, Next.DROP)


def test_a_source_that_comes_back_to_the_pool_starts_nothing() -> None:
    """MIG-01: it had left the inventory before it gave the VM up, and the destination has it."""
    for will in (Will(), Will(back=True)):
        for stage in ("stopping", "copying", "sending", "sent"):
            assert decide(Side(stage), Side("settled", settled=True), will) is Next.LOST
            assert ends(Side(stage), Side("settled")) == {}


def rid(world: World, which: int) -> bool:
    """Another hand removes all of the VM at one node, while the other one keeps all of it."""
    host, other = ((world.here, world.there), (world.there, world.here))[which]
    if host.sidecar is None or policy.stage_of(other.sidecar) not in ("moved", "verified"):
        return False
    world.going = [one for one in world.going if one[0] is not host]
    host.sidecar, host.data, host.runs = None, 0, False
    host.crash()
    world.rid = True
    return True


def lost_world(events: list[tuple[str, int]], which: int) -> World | None:
    """What chance makes of a move of which a hand removes one side; None if it is not lost."""
    world = new_world(Will(), Will())
    for event, number in events:
        happen(world, event, number)
        world.check()
        if number >= 4 and rid(world, which):
            break
    return world if bring_to_its_end(world) is Next.LOST else None


@examples(3)
@given(EVENTS, st.integers(0, 1), st.sampled_from(KEEPS))
def test_an_operator_ends_it_and_one_node_at_most_runs_it(
    events: list[tuple[str, int]], which: int, keep: Keep
) -> None:
    """MIG-01: at whatever point a hand removed one side, and however late orders come."""
    world = lost_world(events, which)
    if world is None:
        return
    possible = ends(*(Side(host.view().stage) for host in (world.here, world.there)))
    assert possible, "what is lost can be ended"
    world.controllers[0].will = Will(keep=keep)
    before = (world.here.sidecar, world.there.sidecar)
    outcome = bring_to_its_end(world)
    if keep not in possible:
        assert outcome is Next.LOST and (world.here.sidecar, world.there.sidecar) == before
        return
    assert outcome in (Next.DONE, Next.FAILED)
    wanted = [keep == "source", keep == "destination"]
    assert [world.here.runs, world.there.runs] == wanted
    # What was on its way all the time changes nothing any more.
    for chosen in tuple(world.sent_before):
        world.arrive(chosen)
        while world.going:
            world.step(0)
            world.check()
    assert [world.here.runs, world.there.runs] == wanted
    assert [world.here.can_run, world.there.can_run] == wanted


@pytest.mark.parametrize(("which", "keep"), [(1, "source"), (0, "destination"), (1, "neither")])
def test_the_model_itself_loses_moves_and_ends_them(which: int, keep: Keep) -> None:
    """So that the property above is about something."""
    for number in range(4, 40):
        events = [("drive", 0), ("step", 0)] * number + [("look", 7)]
        world = lost_world(events, which)
        if world is not None:
            world.controllers[0].will = Will(keep=keep)
            assert bring_to_its_end(world) is (Next.DONE if keep == "destination" else Next.FAILED)
            return
    raise AssertionError("no move was lost")


def found(source: MoveView | None, destination: MoveView | None) -> Found:
    """What two nodes say."""
    return Found(INTENT, source, destination, frozenset())


@pytest.mark.parametrize(
    ("source", "destination", "keep", "gone", "wanted"),
    [
        (MOVED, GONE, "a", ("b",), "source"),
        (MOVED, GONE, None, ("b", "a"), "neither"),
        (MOVED, GONE, "b", ("a",), "move_end_unsafe"),
        (MOVED, THEIRS, "b", ("a",), "destination"),
        (MOVED, THEIRS, "a", ("b",), "move_end_unsafe"),
        (MOVED, THEIRS, None, ("a", "b"), "move_end_unsafe"),
        (GONE, VERIFIED, "b", ("a",), "destination"),
        (GONE, VERIFIED, None, ("a", "b"), "neither"),
        (GONE, VERIFIED, "a", ("b",), "move_end_unsafe"),
        (MOVED, view("receiving", move=MOVE), "a", ("b",), "source"),
        (MOVED, view("receiving", move=MOVE), "b", ("a",), "move_end_unsafe"),
        (MOVED, GONE, "a", ("c",), "move_end_wrong"),
        (MOVED, GONE, "a", ("a",), "move_end_wrong"),
        (MOVED, GONE, "a", ("a", "b"), "move_end_wrong"),
        (MOVED, GONE, None, ("b",), "move_end_wrong"),
        (MOVED, GONE, None, ("b", "b"), "move_end_wrong"),
        (MOVED, None, "a", ("b",), "nodes_silent"),
        (None, VERIFIED, "b", ("a",), "nodes_silent"),
        (MOVED, VERIFIED, "a", ("b",), "move_not_lost"),
        (view("sending", move=MOVE), GONE, "a", ("b",), "move_not_lost"),
        (GONE, view("receiving", move=MOVE), "b", ("a",), "move_not_lost"),
        (GONE, GONE, None, ("a", "b"), "move_not_lost"),
        (GONE, view("settled", move=MOVE), "b", ("a",), "move_not_lost"),
    ],
)
def test_what_is_said_must_be_what_is_found(
    source: MoveView | None,
    destination: MoveView | None,
    keep: str | None,
    gone: tuple[str, ...],
    wanted: str,
) -> None:
    """MIG-01: each refusal has a code of its own, and says what to do."""
    try:
        said = judge(found(source, destination), EndOrder(keep=keep, gone=gone))
    except Refusal as refusal:
        assert refusal.code == wanted and refusal.hint
        return
    assert said == wanted


@pytest.fixture
def moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    """A controller whose move is lost: the destination has nothing of the VM."""
    monkeypatch.setattr(drive_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(drive_module, "MOST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(lost_module, "LOOK_SECONDS", 0.2)
    made = Moving(tmp_path)
    made.nodes.views = {"a": MOVED, "b": GONE}
    made.heard("moving")
    with made.parts.journal:
        yield made


def end(moving: Moving, keep: str | None, *gone: str) -> MoveReport:
    """How the move ends that an operator ends."""

    async def run() -> MoveReport:
        order = EndOrder(keep=keep, gone=gone)
        began = await LostMoves(moving.mover).end(VM, order, moving.parts.asked())
        assert began.outcome == "going"
        return await moving.ended()

    return asyncio.run(run())


def show(moving: Moving) -> LostMove:
    """What is told of the move."""
    return asyncio.run(LostMoves(moving.mover).show(VM, moving.parts.asked()))


def refused(moving: Moving, keep: str | None, *gone: str) -> str:
    """The code of a refusal, after which nothing was done."""
    with pytest.raises(PpnError) as caught:
        end(moving, keep, *gone)
    assert moving.nodes.orders == [] and VM not in moving.mover.under_way
    return caught.value.code


@pytest.mark.parametrize(
    ("views", "keep", "gone", "steps", "outcome", "code"),
    [
        ((MOVED, GONE), "a", ("b",), "reclaim", "failed", "move_reclaimed"),
        ((MOVED, GONE), None, ("a", "b"), "release", "failed", "move_discarded"),
        ((MOVED, ROOM), "a", ("b",), "reclaim drop", "failed", "move_reclaimed"),
        ((MOVED, ROOM), None, ("a", "b"), "release drop", "failed", "move_discarded"),
        ((MOVED, THEIRS), "b", ("a",), "release", "done", ""),
        ((GONE, VERIFIED), "b", ("a",), "settle", "done", ""),
        ((GONE, VERIFIED), None, ("a", "b"), "drop", "failed", "move_discarded"),
    ],
)
@pytest.mark.parametrize("remembered", [True, False])
def test_a_lost_move_is_ended_as_an_operator_says(
    moving: Moving,
    views: tuple[MoveView, MoveView],
    keep: str | None,
    gone: tuple[str, ...],
    steps: str,
    outcome: str,
    code: str,
    remembered: bool,
) -> None:
    """MIG-01: by the controller that drove it, and by one that finds it at its nodes alone."""
    moving.nodes.views = dict(zip("ab", views, strict=True))
    source = "moving" if views[0] is MOVED else ""
    moving.heard(
        source, {VERIFIED.stage: "arriving", THEIRS.stage: "running"}.get(views[1].stage, "")
    )
    if remembered:
        moving.parts.journal.intend(INTENT)
    told = show(moving)
    assert EndOrder(keep=keep, gone=gone) in told.ends
    assert (told.source.node, told.destination.node, told.move) == ("a", "b", MOVE)
    ended = end(moving, keep, *gone)
    assert moving.nodes.orders == steps.split()
    assert (ended.outcome, ended.problem.code if ended.problem else "") == (outcome, code)
    assert moving.parts.journal.intents == {}


def test_a_node_that_may_run_it_unrecorded_is_not_gone(moving: Moving) -> None:
    """MIG-01: its record was removed, and a domain, a process or a file of it was not."""
    silent = {"what": "domain", "code": "libvirt_unavailable", "message": "no answer"}
    remains: tuple[dict[str, Any], ...] = (
        {"domain_xml": "<domain/>"},
        {"pid": 7},
        {"files": ({"name": "root.qcow2", "size_bytes": 1},)},
        {"unread": (silent,)},
    )
    for one in remains:
        moving.nodes.remains["b"] = one
        assert refused(moving, "a", "b") == "move_end_unsafe"
    moving.nodes.remains["b"] = {"qemu_log": ("it ran here once",)}
    ended = end(moving, "a", "b")
    assert ended.problem is not None and ended.problem.code == "move_reclaimed"


def test_what_goes_on_is_nobodys_to_end(moving: Moving) -> None:
    """MIG-01: in no move, driven by another controller, and not lost."""
    moving.heard("running")
    assert refused(moving, "a", "b") == "move_unknown"
    moving.heard("moving")
    moving.parts.peers.says.append("going")
    assert refused(moving, "a", "b") == "order_elsewhere"
    moving.parts.peers.says[:] = [None]
    moving.nodes.views = {"a": view("sending", move=MOVE, active=True), "b": VERIFIED}
    assert refused(moving, "a", "b") == "move_not_lost"
    assert show(moving).ends == ()


def test_what_is_being_ended_is_not_ended_otherwise(moving: Moving) -> None:
    """MIG-01: not by a second operator at the same time."""
    moving.nodes.wrong["reclaim"] = NodeUnreachable("silent")
    order = EndOrder(keep="a", gone=("b",))

    async def run() -> None:
        lost = LostMoves(moving.mover)
        await lost.end(VM, order, moving.parts.asked())
        with pytest.raises(Refusal) as caught:
            await lost.end(VM, EndOrder(gone=("a", "b")), moving.parts.asked())
        assert caught.value.code == "move_not_lost"
        moving.nodes.wrong.clear()
        assert (await moving.ended()).outcome == "failed"

    asyncio.run(run())
    assert set(moving.nodes.orders) == {"reclaim"}


def test_a_silent_node_is_waited_for_unless_it_left_the_inventory(moving: Moving) -> None:
    """MIG-01: out of the pool it counts as having nothing; nobody asks it any more."""
    moving.parts.journal.intend(INTENT)
    moving.nodes.wrong["move"] = NodeUnreachable("silent")
    assert refused(moving, "a", "b") == "nodes_silent"
    assert {show(moving).source.stage, show(moving).destination.stage} == {"silent"}
    del moving.nodes.wrong["move"], moving.parts.registry._nodes["b"], moving.nodes.views["b"]
    told = show(moving)
    assert (told.destination.stage, len(told.ends)) == ("left", 2)
    moving.nodes.views["b"] = VERIFIED
    ended = end(moving, "a", "b")
    assert ended.problem is not None and ended.problem.code == "move_reclaimed"
    assert moving.nodes.orders == ["reclaim"]


def test_a_reclaim_that_its_node_refuses_leaves_it_lost(moving: Moving) -> None:
    """MIG-01: what was said was about a VM that is not there any more as it was."""
    moving.nodes.wrong["reclaim"] = Refusal("no", code="move_unknown", constraint="the test")
    ended = end(moving, "a", "b")
    assert ended.problem is not None and ended.problem.code == "move_lost"
    assert moving.nodes.orders == ["reclaim"] and VM in moving.parts.journal.intents


def test_two_looks_of_different_age_end_nothing(
    moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: another controller may have brought the move forward between them."""
    asked, looks = moving.nodes.ask, [0]

    async def ask(call: Call) -> dict[str, Any]:
        answer = await asked(call)
        looks[0] += call.node == "b" and call.path.endswith("/move")
        if looks[0] == 2:
            moving.nodes.views["b"] = view("settled", move=MOVE, settled=True)
        return answer

    monkeypatch.setattr(moving.nodes, "ask", ask)
    assert end(moving, "a", "b").outcome == "done"
    assert moving.nodes.orders == ["release"]
