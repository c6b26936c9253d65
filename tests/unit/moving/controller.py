"""A controller that drives moves, over two nodes that do each order at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ppn.errors import PpnError, Refusal
from ppn.fleet.journal import Intent
from ppn.fleet.moving.mover import Mover
from ppn.fleet.nodes import Call, Nodes
from ppn.wire.diagnosis import Inspection
from ppn.wire.fleet import MoveReport
from ppn.wire.moving import MoveView
from tests.unit.fleet.builders import SESSION, heartbeat, report
from tests.unit.fleet.controllers import Parts
from tests.unit.moving.test_policy import offer
from tests.unit.moving.world import MOVE, VM

INTENT = Intent(id=VM, owner="moving", digest="", node="b", move=MOVE, source="a")

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


def driven(moving: Moving) -> MoveReport:
    """How a move of the journal ends for a controller that starts again."""

    async def run() -> MoveReport:
        running = asyncio.create_task(moving.mover.run())
        await asyncio.sleep(0)
        ended = await moving.ended()
        running.cancel()
        return ended

    return asyncio.run(run())


def refuse(moving: Moving, order: str, code: str) -> None:
    """Let a node refuse an order."""
    moving.nodes.wrong[order] = Refusal("no", code=code, constraint="the test")
