"""How a controller drives moves: what it tells whom, and what it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ppn.errors import Refusal
from ppn.fleet.moving import mover as mover_module
from ppn.fleet.nodes import NodeUnreachable, OutcomeUnknown
from ppn.wire.problems import problem_of
from tests.unit.fleet.builders import report
from tests.unit.moving.controller import Moving, refuse, view
from tests.unit.moving.world import VM


def test_a_move_from_begin_to_end(moving: Moving) -> None:
    """MIG-01, MIG-02: room first, then the source, and what is left of it last of all."""

    async def run() -> None:
        assert (await moving.begin()).outcome == "going"
        assert VM in moving.parts.journal.intents
        ended = await moving.ended()
        assert (ended.outcome, ended.problem) == ("done", None)
        assert ended.vm is not None and ended.vm.state == "running"

    asyncio.run(run())
    steps = ["arrival", "arrival", "departure", "commit", "settle", "release"]
    assert moving.nodes.orders == steps
    assert moving.parts.journal.intents == {}


@pytest.mark.fault(
    "a controller's disk fails as a move ends",
    "the end is written once it can be, and the VM can be moved again",
)
def test_the_end_of_a_move_is_written_once_it_can_be(
    moving: Moving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: or it would be under way until the controller is started again."""
    monkeypatch.setattr(mover_module, "WATCH_SECONDS", 0.01)

    async def run() -> None:
        await moving.begin()
        drive = moving.mover.under_way[VM]
        aside = tmp_path.rename(tmp_path.with_name("aside"))
        # The next line makes the file anew, for which there is no folder.
        moving.parts.journal.__exit__()
        async with asyncio.timeout(20):
            while drive.outcome == "going":
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert VM in moving.mover.under_way and VM in moving.parts.journal.intents
        aside.rename(tmp_path)
        assert (await moving.ended()).outcome == "done"

    asyncio.run(run())
    assert moving.parts.journal.intents == {}


def test_asked_twice_at_once_it_is_one_move(moving: Moving) -> None:
    """MIG-01: the second must not take the place of the first, nor its intent from the journal."""

    async def run() -> None:
        both = await asyncio.gather(moving.begin(), moving.begin())
        assert len({one.move for one in both}) == 1
        assert (await moving.ended()).outcome == "done"

    asyncio.run(run())
    assert moving.nodes.orders.count("settle") == 1


def test_asked_twice_it_is_one_move(moving: Moving) -> None:
    """MIG-01: the same is found, another one is refused, and so are changes meanwhile."""
    moving.nodes.stuck = True

    async def run() -> None:
        first = await moving.begin()
        assert (await moving.begin()).move == first.move
        with pytest.raises(Refusal) as caught:
            await moving.begin("a")
        assert caught.value.code == "vm_moving"
        assert moving.mover.is_moving(VM) and moving.parts.maker.stage(VM) == "going"
        found = await moving.mover.report(VM, moving.parts.asked())
        assert (found.move, found.source, found.node) == (first.move, "a", "b")
        moving.nodes.stuck = False
        moving.nodes.views["a"] = view("sending", move=first.move)
        assert (await moving.ended()).outcome == "done"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "change", "node"),
    [
        ("node_unknown", lambda moving: None, "c"),
        ("node_same", lambda moving: None, "a"),
        ("vm_declared", lambda moving: refuse_offer(moving), "b"),
        ("vcpus_exhausted", lambda moving: refuse(moving, "arrival", "vcpus_exhausted"), "b"),
        ("order_elsewhere", lambda moving: moving.parts.peers.says.append("going"), "b"),
        ("vm_doubled", lambda moving: moving.heard("running", "running"), "b"),
        ("vm_unknown", lambda moving: moving.heard("", ""), "b"),
    ],
)
def test_what_is_refused_leaves_the_vm_alone(
    moving: Moving, code: str, change: Callable[[Moving], None], node: str
) -> None:
    """MIG-02: with the reason, before the source is told anything."""
    change(moving)

    async def run() -> None:
        with pytest.raises(Refusal) as caught:
            await moving.begin(node)
        assert caught.value.code == code

    asyncio.run(run())
    assert {"departure", "back"}.isdisjoint(moving.nodes.orders)
    assert moving.parts.journal.intents == {} and moving.mover.under_way == {}


def refuse_offer(moving: Moving) -> None:
    """Let the source say that its VM does not move."""
    problem = problem_of(Refusal("no", code="vm_declared", constraint="the test"))
    moving.nodes.views["a"] = view("here", problem=problem.model_dump())


def test_room_that_may_have_been_kept_is_given_back(moving: Moving) -> None:
    """MIG-02: the answer was lost, so the caller is told so, and nobody departs."""
    moving.nodes.wrong["arrival"] = OutcomeUnknown("lost")

    async def run() -> None:
        with pytest.raises(OutcomeUnknown):
            await moving.begin()
        moving.nodes.views["b"] = view("receiving", move=moving.mover.under_way[VM].intent.move)
        assert (await moving.ended()).outcome == "failed"

    asyncio.run(run())
    assert moving.nodes.orders == ["arrival", "back", "drop"], "the source was told nothing else"
    assert moving.parts.journal.intents == {}


@pytest.mark.parametrize(
    ("order", "code", "steps"),
    [
        ("departure", "disk_exhausted", ["departure", "back", "drop"]),
        ("commit", "move_unknown", ["departure", "commit", "back", "drop"]),
    ],
)
def test_what_fails_before_the_commit_goes_back(
    moving: Moving, order: str, code: str, steps: list[str]
) -> None:
    """MIG-01: the VM stays where it was, and what was kept for it is given back."""
    refuse(moving, order, code)

    async def run() -> None:
        await moving.begin()
        ended = await moving.ended()
        assert ended.outcome == "failed" and ended.problem is not None
        assert ended.problem.code == code

    asyncio.run(run())
    assert moving.nodes.orders[2:] == steps


def test_a_move_that_comes_no_further_goes_back(moving: Moving) -> None:
    """MIG-01: nothing waits for ever."""
    moving.nodes.stuck = True

    async def run() -> None:
        await moving.begin()
        while "departure" not in moving.nodes.orders:
            await asyncio.sleep(0.01)
        # More than once: what the departure began may be seen only after the first.
        while "back" not in moving.nodes.orders:
            moving.parts.clock.ahead += 31
            await asyncio.sleep(0.01)
        ended = await moving.ended()
        assert ended.problem is not None and ended.problem.code == "move_stalled"

    asyncio.run(run())
    assert moving.nodes.orders[-2:] == ["back", "drop"]


def test_a_node_that_is_silent_is_waited_for(moving: Moving) -> None:
    """MIG-01: after the commit there is no way back, and before it a silent source decides."""
    moving.nodes.wrong["settle"] = NodeUnreachable("silent")

    async def run() -> None:
        await moving.begin()
        while moving.nodes.orders.count("settle") < 5:
            await asyncio.sleep(0.01)
            moving.parts.clock.ahead += 31
        assert moving.mover.under_way[VM].outcome == "going"
        moving.nodes.wrong.clear()
        assert (await moving.ended()).outcome == "done"

    asyncio.run(run())


def test_a_vm_that_does_not_start_has_moved_all_the_same(moving: Moving) -> None:
    """MIG-01: it is told so, and what the source keeps is removed after a while."""

    async def run() -> None:
        await moving.begin()
        move = moving.mover.under_way[VM].intent.move
        while "commit" not in moving.nodes.orders:
            await asyncio.sleep(0)
        moving.nodes.views["b"] = view("settled", move=move, report=report(VM, state="stopped"))
        refuse(moving, "settle", "memory_not_free")
        while moving.nodes.orders.count("settle") < 3:
            await asyncio.sleep(0.01)
        assert "release" not in moving.nodes.orders
        moving.parts.clock.ahead += 61
        ended = await moving.ended()
        assert ended.outcome == "done" and ended.problem is not None
        assert ended.problem.code == "memory_not_free"

    asyncio.run(run())
    assert moving.nodes.orders[-1] == "release"
