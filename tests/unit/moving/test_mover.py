"""How a controller drives moves: what it tells whom, what it gives up, and what it takes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ppn.errors import PpnError, Refusal
from ppn.fleet.journal import Intent
from ppn.fleet.moving import drive as drive_module
from ppn.fleet.moving import mover as mover_module
from ppn.fleet.moving.mover import Mover
from ppn.fleet.nodes import Call, Nodes, NodeUnreachable, OutcomeUnknown
from ppn.fleet.reports import pool_alerts
from ppn.wire.diagnosis import Inspection
from ppn.wire.fleet import MoveReport
from ppn.wire.moving import MoveView
from ppn.wire.problems import problem_of
from tests.unit.fleet.builders import SESSION, heartbeat, report
from tests.unit.fleet.controllers import Parts
from tests.unit.moving.test_policy import offer
from tests.unit.moving.world import MOVE, VM

Answer = Callable[[Call], Any]


class TwoNodes:
    """Stands for the way to nodes a and b: the VM is on a, and each order is done at once."""

    def __init__(self) -> None:
        self.views = {"a": view("here", offer=offer()), "b": view("gone")}
        self.orders: list[str] = []
        self.wrong: dict[str, PpnError] = {}
        self.remains: dict[str, dict[str, Any]] = {}
        self.stuck = False

    async def ask(self, call: Call) -> dict[str, Any]:
        """Answer as the nodes would."""
        what = call.path.removeprefix(f"/v1/vms/{VM}")
        step = str(call.body.get("step", "")) if call.body is not None else ""
        order = step or what.removeprefix("/")
        if what == "/inspect":
            if call.node not in self.remains:
                raise Refusal(VM, code="vm_unknown", constraint="known VM")
            return Inspection(vm=VM, **self.remains[call.node]).model_dump(mode="json")
        if call.method != "GET":
            self.orders.append(order)
        if (error := self.wrong.get(order)) is not None:
            raise error
        if call.method != "GET" and call.body is not None:
            self._do(order, str(call.body["move"]))
        found = self.views[call.node].model_dump(mode="json")
        return {"secret": "s" * 43, "view": found} if order == "arrival" else found

    def _do(self, order: str, move: str) -> None:
        a, b = self.views["a"], self.views["b"]
        if order == "arrival" and b.stage in ("gone", "receiving"):
            b = view("receiving", move=move, active=True)
        elif order == "departure":
            done = not self.stuck
            a = view("sent" if done else "sending", move=move, active=not done)
            b = view("verified" if done else "receiving", move=move, active=not done)
        elif order == "commit":
            a = view("moved", move=move)
        elif order == "settle":
            b = view("settled", move=move, settled=True, report=report(VM))
        elif order in ("back", "reclaim"):
            a = view("back", move=move, settled=True, report=report(VM))
        elif order == "release":
            a = view("gone")
        elif order == "drop":
            b = view("gone")
        self.views = {"a": a, "b": b}


def view(stage: str, **fields: Any) -> MoveView:
    """What a node says."""
    return MoveView.model_validate({"vm": VM, "stage": stage, "peer": "b", **fields})


class Moving:
    """A controller whose nodes have one VM, on a.

    Args:
        folder: takes its journal.
    """

    def __init__(self, folder: Path) -> None:
        self.parts = Parts(folder / "intents.jsonl")
        self.nodes = TwoNodes()
        self.parts.remover.nodes = cast(Nodes, self.nodes)
        self.mover = Mover(self.parts.maker, self.parts.remover, 9204, 30.0, self.parts.clock)
        self.heard("running")

    def heard(self, *states: str) -> None:
        """Let the nodes tell how the VM is on a, and on b."""
        self.parts.sequence += 1
        for at, (name, node) in enumerate(self.parts.registry.nodes.items()):
            vms = [report(VM, state=states[at])] if at < len(states) and states[at] else []
            beat = heartbeat(name, *vms, sequence=self.parts.sequence, session=SESSION)
            self.parts.registry.hear(beat, node.address, self.parts.clock())

    async def begin(self, node: str = "b") -> MoveReport:
        """Ask for a move."""
        return await self.mover.begin(VM, node, self.parts.asked())

    async def ended(self) -> MoveReport:
        """How it ended, with nothing left to do."""
        async with asyncio.timeout(20):
            while VM in self.mover.under_way:
                await asyncio.sleep(0.01)
        return self.mover.ended[VM]


@pytest.fixture
def moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    """A controller that does not wait long."""
    monkeypatch.setattr(drive_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(drive_module, "MOST_PAUSE_SECONDS", 0.02)
    made = Moving(tmp_path)
    with made.parts.journal:
        yield made


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


def refuse(moving: Moving, order: str, code: str) -> None:
    """Let a node refuse an order."""
    moving.nodes.wrong[order] = Refusal("no", code=code, constraint="the test")


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
        await asyncio.sleep(0.1)
        moving.parts.clock.ahead += 31
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


def test_a_controller_that_starts_again_goes_on(moving: Moving) -> None:
    """MIG-01: from what the nodes say, and from its journal."""
    intent = Intent(id=VM, owner="moving", digest="", node="b", move=MOVE, source="a")
    moving.parts.journal.intend(intent)
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
        moving.parts.peers.says[:] = [None]
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


INTENT = Intent(id=VM, owner="moving", digest="", node="b", move=MOVE, source="a")


def driven(moving: Moving) -> MoveReport:
    """How a move of the journal ends for a controller that starts again."""

    async def run() -> MoveReport:
        running = asyncio.create_task(moving.mover.run())
        await asyncio.sleep(0)
        ended = await moving.ended()
        running.cancel()
        return ended

    return asyncio.run(run())


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
        moving.parts.peers.says[:] = [None]
        both = await asyncio.gather(cancel(moving), cancel(moving))
        assert {one.move for one in both} == {MOVE}
        ended = await moving.ended()
        assert ended.outcome == "failed" and ended.problem is not None

    asyncio.run(run())
    assert moving.nodes.orders == ["back", "drop"]
