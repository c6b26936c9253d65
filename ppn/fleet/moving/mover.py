"""Begins moves of VMs, tells how far they are, and goes on with those nobody drives any more."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ppn.errors import PpnError, Refusal
from ppn.fleet.journal import Intent
from ppn.fleet.making import Asked, Maker, surely_not_done
from ppn.fleet.moving.drive import Drive
from ppn.fleet.moving.lines import Lines
from ppn.fleet.moving.policy import ARRIVING, SOURCE_WORK, Next, Will
from ppn.fleet.node import Held
from ppn.fleet.removing import Remover, doubled
from ppn.log import get_logger
from ppn.wire.fleet import MoveReport
from ppn.wire.heartbeat import IN_TRANSIT
from ppn.wire.moving import MoveView, Stage
from ppn.wire.problems import error_of

WATCH_SECONDS = 10.0
# A move that no controller drives any more is called back, or brought forward, after so long.
ORPHAN_SECONDS = 60.0
ENDED_KEPT = 1024
MOVING = "moving"
# Of a move that no controller remembers, by what its node says.
OUTCOMES: dict[Stage, Literal["done", "failed"]] = {"settled": "done", "back": "failed"}

log = get_logger("fleet")


@dataclass
class Mover:
    """Has VMs moved; one move of a VM at a time, whichever controller is asked.

    Args:
        maker: has the registry, the journal and the other controllers.
        remover: knows where a VM is, and sends to its node.
        port: of every node's proxy.
        stall_seconds: a move that comes no further for so long is called back.
        clock: seconds that never jump.
        under_way: the moves this controller drives, by VM.
        ended: those that have ended, the oldest first.
        orphans: VMs in moves that nobody seems to drive, and since when.
    """

    maker: Maker
    remover: Remover
    port: int
    stall_seconds: float
    clock: Callable[[], float]
    under_way: dict[str, Drive] = field(default_factory=dict)
    ended: OrderedDict[str, MoveReport] = field(default_factory=OrderedDict)
    orphans: dict[str, float] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def begin(self, vm: str, node: str, asked: Asked) -> MoveReport:
        """Have a VM moved; answers once the destination has kept room for it.

        The same again finds the move that is going on.

        Args:
            vm: its id.
            node: where it shall go.
            asked: who waits.

        Raises:
            Refusal: the VM does not move, the node cannot take it, or it moves elsewhere already;
                the VM was not touched.
            PpnError: a node does not say.
        """
        if (drive := self.under_way.get(vm)) is not None:
            return _same(drive.report(), node)
        registry, now = self.remover.registry, self.clock()
        known = registry.nodes.get(node)
        if known is None:
            raise _refusal("node_unknown", f"the inventory has no hypervisor {node}", "list nodes")
        held = self._one(vm)
        if held.report.state in IN_TRANSIT:
            return _same(await self._told(vm, held.node, asked), node)
        if held.node == node:
            raise _refusal("node_same", f"vm {vm} is on {node} already", "name another node")
        for name in (node, held.node):
            if registry.is_stale(registry.nodes[name], now):
                raise _refusal("node_stale", f"node {name} is not heard", "ask again once it is")
        # What is begun is brought to an end, whether or not somebody waits for the answer.
        return await asyncio.shield(self._begin(vm, held.node, node, asked))

    async def report(self, vm: str, asked: Asked) -> MoveReport:
        """How far a VM's last move is, or how it ended.

        Raises:
            Refusal: `move_unknown`: there was none, as far as is known.
            PpnError: its node does not say.
        """
        if (drive := self.under_way.get(vm)) is not None:
            return drive.report()
        if (ended := self.ended.get(vm)) is not None:
            return ended
        return await self._told(vm, self._one(vm).node, asked)

    async def cancel(self, vm: str, asked: Asked) -> MoveReport:
        """Have a VM stay where it is, as long as it was not given up there; how far its move is.

        Args:
            vm: its id.
            asked: who waits.

        Raises:
            Refusal: `move_unknown`: it is in no move; `move_committed`: too late; or another
                controller drives the move.
            PpnError: its node does not say.
        """
        if (drive := self.under_way.get(vm)) is None:
            held = self._one(vm)
            if held.report.state not in IN_TRANSIT:
                raise _refusal("move_unknown", f"vm {vm} is on no way to another node", "list VMs")
            if await self.maker.peers.stages(vm) - {"told"}:
                raise _refusal("order_elsewhere", f"another controller moves vm {vm}", "ask there")
            drive = await self._adopt(vm, held.node, asked)
        if drive is None:
            raise _refusal("move_unknown", f"the move of vm {vm} has ended", "look at the VM")
        return drive.cancel()

    def is_moving(self, vm: str) -> bool:
        """Whether this controller is moving a VM just now."""
        drive = self.under_way.get(vm)
        return drive is not None and drive.outcome == "going"

    async def run(self) -> None:
        """Go on with what an earlier process of this controller drove, and watch, for ever."""
        for intent in self.maker.journal.intents.values():
            if intent.move:
                self._drive(self._new(intent, f"move-{intent.move}"))
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.watch()
            except PpnError as error:
                log.info("moves not watched", code=error.code, error=str(error))

    async def watch(self) -> None:
        """Take on the moves that nobody drives any more; before the VM is given up, back.

        Raises:
            PpnError: a node does not say.
        """
        now = self.clock()
        moving = {
            held.report.id: held
            for held in self.remover.registry.in_transit(now)
            if held.report.id not in self.under_way and not held.stale
        }
        self.orphans = {vm: self.orphans.get(vm, now) for vm in moving}
        for vm, since in tuple(self.orphans.items()):
            if now - since < ORPHAN_SECONDS:
                continue
            if not await self.maker.peers.stages(vm) - {"told"}:
                asked = Asked(f"orphan-{vm}"[:64], self.clock())
                await self._adopt(vm, moving[vm].node, asked)

    async def _adopt(self, vm: str, node: str, asked: Asked) -> Drive | None:
        """Drive a move that nobody drives: back, or forward if it was committed; None for none."""
        view = await self._lines(asked).view(vm, node)
        if (drive := self.under_way.get(vm)) is not None or not view.move:
            return drive
        ends = (node, view.peer) if view.stage in {*SOURCE_WORK, "moved"} else (view.peer, node)
        if view.stage not in {*SOURCE_WORK, *ARRIVING, "moved"}:
            return None
        intent = Intent(
            id=vm, owner=MOVING, digest="", node=ends[1], move=view.move, source=ends[0]
        )
        log.warning("move without a driver", vm=vm, move=view.move, source=ends[0], node=ends[1])
        problem = PpnError(
            f"who drove the move of vm {vm} is gone", code="move_orphaned", hint="move it again"
        )
        drive = self._new(intent, asked.correlation_id, Will(back=True), problem)
        if ends[0] == node:
            drive.source = view
        return await self._take_on(drive)

    async def take_on(
        self, intent: Intent, asked: Asked, will: Will, problem: PpnError | None
    ) -> MoveReport:
        """Go on with a move that nobody drives, as somebody wants; how far it is then.

        Args:
            intent: the move.
            asked: who wants it.
            will: what is wanted.
            problem: why, where it does not end as it was meant to.
        """
        if (drive := self.under_way.get(intent.id)) is None:
            drive = self._new(intent, asked.correlation_id, will, problem)
            await asyncio.shield(self._take_on(drive))
        return drive.report()

    async def _take_on(self, drive: Drive) -> Drive:
        vm = drive.intent.id
        self.under_way[vm] = drive
        try:
            await asyncio.to_thread(self.maker.journal.intend, drive.intent)
        except BaseException:
            del self.under_way[vm]
            raise
        self._drive(drive)
        return drive

    async def _begin(self, vm: str, source: str, node: str, asked: Asked) -> MoveReport:
        if (drive := self.under_way.get(vm)) is not None:
            # Begun by a request that came at the same time.
            return _same(drive.report(), node)
        if vm in self.maker.under_way or vm in self.maker.journal.intents:
            raise _refusal("vm_busy", f"vm {vm} is being made", "ask again once it is made")
        intent = Intent(
            id=vm,
            owner=MOVING,
            digest="",
            node=node,
            move=secrets.token_hex(16),
            source=source,
        )
        drive = self.under_way[vm] = self._new(intent, asked.correlation_id)
        self.ended.pop(vm, None)
        begun = False
        try:
            drive.source = await drive.lines.view(vm, source)
            if drive.source.offer is None:
                raise _cannot_leave(vm, drive.source)
            await asyncio.to_thread(self.maker.journal.intend, intent)
            begun = True
            if await self.maker.peers.stages(vm) - {"told"}:
                raise _refusal("order_elsewhere", f"another controller is at vm {vm}", "ask there")
            await drive.lines.prepare(intent, drive.source.offer)
        except PpnError as error:
            if begun and not surely_not_done(error):
                # Room may have been kept all the same: it is given back, and nobody departs.
                drive.problem, drive.will = error, Will(back=True)
                self._drive(drive)
                raise
            del self.under_way[vm]
            if begun:
                await asyncio.to_thread(self.maker.journal.end, vm)
            raise
        except BaseException:
            del self.under_way[vm]
            raise
        self._drive(drive)
        return drive.report()

    def _drive(self, drive: Drive) -> None:
        self.under_way[drive.intent.id] = drive
        task = asyncio.create_task(self._to_its_end(drive))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _to_its_end(self, drive: Drive) -> None:
        vm = drive.intent.id
        while True:
            try:
                last = await drive.run()
                if last is not Next.LOST:
                    # What is lost stays in the journal, and is looked at again after a restart.
                    await asyncio.to_thread(self.maker.journal.end, vm)
                break
            except Exception:
                # What nobody foresaw, or a full disk, must not leave a VM between two nodes, nor
                # its move under way for ever.
                log.exception("move broke off", vm=vm, move=drive.intent.move)
                await asyncio.sleep(WATCH_SECONDS)
        log.info("move ended", vm=vm, move=drive.intent.move, outcome=last.value)
        self.ended[vm] = drive.report()
        while len(self.ended) > ENDED_KEPT:
            self.ended.popitem(last=False)
        del self.under_way[vm]

    def _new(
        self,
        intent: Intent,
        correlation_id: str,
        will: Will | None = None,
        problem: PpnError | None = None,
    ) -> Drive:
        lines = Lines(self.remover, self.clock, self.port, correlation_id)
        registry = self.remover.registry
        return Drive(
            intent, lines, registry, self.clock, self.stall_seconds, will or Will(), problem
        )

    def _lines(self, asked: Asked) -> Lines:
        return Lines(self.remover, self.clock, self.port, asked.correlation_id)

    def _one(self, vm: str) -> Held:
        held = self.remover.find(vm)
        if len(held) > 1:
            raise doubled(vm, held)
        return held[0]

    async def _told(self, vm: str, node: str, asked: Asked) -> MoveReport:
        """A move as the node tells of it that has the VM."""
        view = await self._lines(asked).view(vm, node)
        if not view.move or not view.peer:
            raise _refusal("move_unknown", f"vm {vm} was not moved, as far as is known", "move it")
        leaves = view.stage in {*SOURCE_WORK, "moved", "back"}
        return MoveReport(
            id=vm,
            move=view.move,
            source=node if leaves else view.peer,
            node=view.peer if leaves else node,
            stage=view.stage,
            bytes_done=view.bytes_done,
            bytes_total=view.bytes_total,
            outcome=OUTCOMES.get(view.stage, "going"),
            problem=view.problem,
            vm=view.report,
        )


def _same(report: MoveReport, node: str) -> MoveReport:
    """The move that is going on, if it is the one that is asked for.

    Raises:
        Refusal: `vm_moving`.
    """
    if report.node != node or report.outcome == "failed":
        raise _refusal(
            "vm_moving",
            f"vm {report.id} is moving from {report.source} to {report.node}",
            "ask again once that has ended (ppn vm move shows how far it is)",
        )
    return report


def _cannot_leave(vm: str, view: MoveView) -> PpnError:
    if view.problem is not None:
        return error_of(view.problem)
    return _refusal("vm_unknown", f"vm {vm} is not on its node any more", "list the VMs")


def _refusal(code: str, message: str, hint: str) -> Refusal:
    return Refusal(message, code=code, constraint="move of a VM", hint=hint)
