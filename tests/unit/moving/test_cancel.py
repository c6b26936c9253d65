"""Moves that are called back."""

from __future__ import annotations

import asyncio

import pytest

from ppn.errors import Refusal
from ppn.wire.fleet import MoveReport
from tests.unit.moving.controller import Moving, refuse, view
from tests.unit.moving.world import MOVE, VM


async def cancel(moving: Moving) -> MoveReport:
    """Call the VM's move back."""
    return await moving.mover.cancel(VM, moving.parts.asked())


def test_a_move_is_cancelled_before_it_is_committed(moving: Moving) -> None:
    """MIG-01: the VM stays where it is; asked twice it is the same."""
    moving.nodes.stuck = True

    async def run() -> None:
        await moving.begin()
        while "departure" not in moving.nodes.orders:
            await asyncio.sleep(0.01)
        assert (await cancel(moving)).stage == "back"
        assert (await cancel(moving)).outcome == "going"
        ended = await moving.ended()
        assert ended.outcome == "failed" and ended.problem is not None
        assert ended.problem.code == "move_cancelled"

    asyncio.run(run())
    assert moving.nodes.orders[-2:] == ["back", "drop"]
    assert moving.parts.journal.intents == {}


def test_a_move_that_is_committed_is_not_cancelled(moving: Moving) -> None:
    """MIG-01: from the commit on it only goes forward, and says so."""
    refuse(moving, "settle", "memory_not_free")

    async def run() -> None:
        await moving.begin()
        while "settle" not in moving.nodes.orders:
            await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as caught:
            await cancel(moving)
        assert caught.value.code == "move_committed"
        del moving.nodes.wrong["settle"]
        assert (await moving.ended()).outcome == "done"

    asyncio.run(run())


def test_a_cancelled_move_that_was_just_committed_is_done(moving: Moving) -> None:
    """MIG-01: the controller learns of it from the source's own refusal."""
    moving.nodes.stuck = True

    async def run() -> None:
        move = (await moving.begin()).move
        while "departure" not in moving.nodes.orders:
            await asyncio.sleep(0.01)
        refuse(moving, "back", "move_committed")
        await cancel(moving)
        moving.nodes.views = {"a": view("moved", move=move), "b": view("verified", move=move)}
        ended = await moving.ended()
        assert (ended.outcome, ended.problem) == ("done", None)

    asyncio.run(run())


def test_what_no_controller_drives_is_cancelled_all_the_same(moving: Moving) -> None:
    """MIG-01: its driver is gone; while another one drives it, that one is to be asked."""
    moving.nodes.views = {
        "a": view("sending", move=MOVE),
        "b": view("receiving", move=MOVE, peer="a"),
    }

    async def run() -> None:
        moving.parts.peers.says.append("going")
        for code, states in (
            ("move_unknown", ("running",)),
            ("order_elsewhere", ("moving", "arriving")),
        ):
            moving.heard(*states)
            with pytest.raises(Refusal) as caught:
                await cancel(moving)
            assert caught.value.code == code
        # Who made the VM, and has told so, may have nothing to do with its move.
        moving.parts.peers.says[:] = ["told"]
        both = await asyncio.gather(cancel(moving), cancel(moving))
        assert {one.move for one in both} == {MOVE}
        ended = await moving.ended()
        assert ended.outcome == "failed" and ended.problem is not None

    asyncio.run(run())
    assert moving.nodes.orders == ["back", "drop"]
