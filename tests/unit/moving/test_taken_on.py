"""Moves that a controller did not begin, or not in this life: it takes them on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.fleet.moving import mover as mover_module
from ppn.fleet.nodes import Call
from ppn.fleet.reports import pool_alerts
from tests.unit.moving.controller import INTENT, Moving, driven, view
from tests.unit.moving.world import MOVE, VM


def test_a_controller_that_starts_again_goes_on(moving: Moving) -> None:
    """MIG-01: from what the nodes say, and from its journal."""
    moving.parts.journal.intend(INTENT)
    moving.nodes.views = {
        "a": view("sending", move=MOVE),
        "b": view("receiving", move=MOVE),
    }

    async def run() -> None:
        await moving.parts.settle()
        assert VM in moving.parts.journal.intents, "it is no creation to be decided"
        running = asyncio.create_task(moving.mover.run())
        await asyncio.sleep(0)
        assert (await moving.ended()).outcome == "done"
        running.cancel()

    asyncio.run(run())
    assert moving.nodes.orders[:3] == ["arrival", "arrival", "departure"]
    assert moving.parts.journal.intents == {}


@pytest.mark.parametrize(
    ("source", "destination", "outcome"),
    [("sending", "receiving", "failed"), ("moved", "verified", "done")],
)
def test_a_move_without_a_driver_is_taken_on(
    moving: Moving, source: str, destination: str, outcome: str
) -> None:
    """MIG-01: the controller that drove it is gone for good; another one ends it."""
    moving.nodes.views = {
        "a": view(source, move=MOVE),
        "b": view(destination, move=MOVE, peer="a"),
    }
    moving.heard("moving", "arriving")

    async def run() -> None:
        await moving.mover.watch()
        assert moving.mover.under_way == {}
        moving.parts.clock.ahead += mover_module.ORPHAN_SECONDS + 1
        moving.heard("moving", "arriving")
        moving.parts.peers.says.append("going")
        await moving.mover.watch()
        assert moving.mover.under_way == {}, "another controller is at it"
        moving.parts.peers.says[:] = ["told"]
        await moving.mover.watch()
        assert (await moving.ended()).outcome == outcome

    asyncio.run(run())


def test_a_vm_between_two_nodes_is_listed_once(moving: Moving) -> None:
    """MIG-01: and is no alert; one that two nodes have for their own is."""
    registry, now = moving.parts.registry, moving.parts.clock

    def listed() -> list[tuple[str, str]]:
        return [(one.node, one.report.state) for one in registry.vms(now())]

    for states, wanted in (
        (("moving", ""), [("a", "moving")]),
        (("moving", "arriving"), [("a", "moving")]),
        (("", "arriving"), [("b", "arriving")]),
        (("moving", "running"), [("b", "running")]),
        (("running", "arriving"), [("a", "running")]),
    ):
        moving.heard(*states)
        assert listed() == wanted
        assert list(pool_alerts(registry, now())) == []
        assert [held.node for held in registry.find(VM, now())] == [wanted[0][0]]
    moving.heard("running", "running")
    assert [alert.code for alert in pool_alerts(registry, now())] == ["vm_doubled"]
    assert len(listed()) == 2


def test_what_no_controller_remembers_the_node_tells(moving: Moving) -> None:
    """MIG-01: after a restart, from the VM's own record."""

    async def run() -> None:
        with pytest.raises(Refusal) as caught:
            moving.nodes.views["a"] = view("here", peer="")
            await moving.mover.report(VM, moving.parts.asked())
        assert caught.value.code == "move_unknown"
        moving.nodes.views["a"] = view("settled", move=MOVE)
        told = await moving.mover.report(VM, moving.parts.asked())
        assert (told.outcome, told.source, told.node) == ("done", "b", "a")

    asyncio.run(run())


@pytest.mark.parametrize(("destination", "steps"), [("receiving", ["drop"]), ("gone", [])])
def test_a_vm_that_was_removed_meanwhile_leaves_nothing_behind(
    moving: Moving, destination: str, steps: list[str]
) -> None:
    """MIG-02: before it was given up; the room that was kept for it is given back."""
    moving.parts.journal.intend(INTENT)
    moving.nodes.views = {"a": view("gone"), "b": view(destination, move=MOVE)}
    ended = driven(moving)
    assert ended.outcome == "failed" and ended.problem is not None
    assert ended.problem.code == "vm_unknown"
    assert moving.nodes.orders == steps and moving.parts.journal.intents == {}


def test_a_vm_that_has_moved_on_since_is_not_lost(moving: Moving) -> None:
    """MIG-01: its destination has it in another move, seen by a controller that starts again."""
    moving.parts.journal.intend(INTENT)
    moving.nodes.views = {"a": view("gone"), "b": view("sending", move="b" * 32)}
    assert driven(moving).outcome == "done"
    assert moving.parts.journal.intents == {}


@pytest.mark.parametrize(
    ("source", "destination", "keeps"),
    [
        (dict(stage="moved", move=MOVE), dict(stage="gone"), "a"),
        (dict(stage="moved", move=MOVE), dict(stage="here"), "a"),
        (dict(stage="gone"), dict(stage="verified", move=MOVE), "b"),
    ],
)
def test_what_only_a_person_can_decide_says_who_keeps_it(
    moving: Moving, source: dict[str, str], destination: dict[str, str], keeps: str
) -> None:
    """MIG-01: nothing is removed, and it is looked at again after a restart."""
    moving.parts.journal.intend(INTENT)
    moving.nodes.views = {"a": view(**source), "b": view(**destination)}
    ended = driven(moving)
    assert ended.problem is not None and ended.problem.code == "move_lost"
    assert ended.problem.hint.startswith(f"what {keeps} keeps")
    assert moving.nodes.orders == [] and VM in moving.parts.journal.intents


def test_two_looks_of_different_age_are_no_loss(
    moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: another controller settles and releases between the answers of the two nodes."""
    moving.parts.journal.intend(INTENT)
    moving.nodes.views = {"a": view("gone"), "b": view("verified", move=MOVE)}
    asked = moving.nodes.ask

    async def ask(call: Call) -> dict[str, Any]:
        answer = await asked(call)
        if call.node == "b":
            moving.nodes.views["b"] = view("settled", move=MOVE, settled=True)
        return answer

    monkeypatch.setattr(moving.nodes, "ask", ask)
    assert driven(moving).outcome == "done"
