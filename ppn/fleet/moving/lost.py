"""Moves that only a person can end: what their nodes have, and what an operator says of it.

A move is lost when one of its nodes was rid of the VM by another hand, or has left the inventory.
What the other one keeps is whole, and no node can know whether it may run: that is for an operator
to say, by the name of each node. It is done only as long as the nodes themselves do not contradict.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ppn.errors import PpnError, Refusal
from ppn.fleet.journal import Intent
from ppn.fleet.making import Asked
from ppn.fleet.moving.lines import Lines
from ppn.fleet.moving.mover import MOVING, Mover
from ppn.fleet.moving.policy import ARRIVING, Keep, Side, Will, ends, side_of
from ppn.fleet.nodes import understood
from ppn.log import get_logger
from ppn.wire.diagnosis import Inspection
from ppn.wire.fleet import EndOrder, LostMove, MoveReport, PartFound
from ppn.wire.moving import MoveView

POLL_SECONDS = 0.1
# A controller looks at a lost move again now and then, and finds within this that it still is.
LOOK_SECONDS = 5.0
LEFT, SILENT = "left", "silent"

log = get_logger("fleet")


@dataclass(frozen=True)
class Found:
    """A move and what its nodes say of it.

    Args:
        intent: the move.
        source, destination: what each says; None for one that does not.
        left: those of them that are not in the inventory any more.
    """

    intent: Intent
    source: MoveView | None
    destination: MoveView | None
    left: frozenset[str]

    @property
    def sides(self) -> tuple[Side, Side]:
        """Its nodes' parts in it."""
        move = self.intent.move
        return side_of(self.source, move), side_of(self.destination, move)

    def shown(self) -> LostMove:
        """All of it on the wire."""
        source, destination = self.sides
        names = {"source": self.intent.source, "destination": self.intent.node}
        return LostMove(
            id=self.intent.id,
            move=self.intent.move,
            source=self._part(self.intent.source, source, self.source),
            destination=self._part(self.intent.node, destination, self.destination),
            ends=tuple(_order(keep, names) for keep in ends(source, destination)),
        )

    def _part(self, node: str, side: Side, view: MoveView | None) -> PartFound:
        if node in self.left:
            return PartFound(node=node, stage=LEFT)
        stage = SILENT if view is None else side.stage
        return PartFound(node=node, stage=stage, vm=view.report if view is not None else None)


def judge(found: Found, order: EndOrder) -> Keep:
    """What an operator says of a move, if it may be done.

    Raises:
        Refusal: `nodes_silent`: a node does not say what it has; `move_not_lost`: it goes on, or
            ended, without anybody's help; `move_end_wrong`: not its two nodes were named;
            `move_end_unsafe`: what was found is not what was said.
    """
    vm, source, node = found.intent.id, found.intent.source, found.intent.node
    sides = found.sides
    silent = [name for name, side in zip((source, node), sides, strict=True) if _silent(side)]
    if silent:
        raise _refusal(
            "nodes_silent",
            f"{' and '.join(silent)} does not say what it has of vm {vm}",
            "ask again once it is heard; a node that is gone for good is taken out of the"
            " inventory, and the deploy run for the controllers, first",
        )
    possible = ends(*sides)
    if not possible:
        raise _refusal(
            "move_not_lost",
            f"{source} ({sides[0].stage}) and {node} ({sides[1].stage}) need nobody to say what"
            f" becomes of vm {vm}",
            f"see ppn vm show {vm}; a move that goes on is called back by ppn vm move --cancel",
        )
    if sorted((order.keep or "", *order.gone)) not in (
        sorted((source, node)),
        sorted(("", source, node)),
    ):
        raise _refusal(
            "move_end_wrong",
            f"the nodes of this move are {source} and {node}: say of each once who keeps vm {vm},"
            " and where it is gone",
            f"ppn vm end-move {vm} says what was found, and what can be said",
        )
    keep: Keep = "neither"
    if order.keep is not None:
        keep = "source" if order.keep == source else "destination"
    if keep not in possible:
        raise _refusal("move_end_unsafe", _contradiction(found, keep), f"see ppn vm end-move {vm}")
    return keep


@dataclass
class LostMoves:
    """Ends moves that are lost.

    Args:
        mover: drives moves.
    """

    mover: Mover

    async def show(self, vm: str, asked: Asked) -> LostMove:
        """What the two nodes of a VM's move have of it.

        Raises:
            Refusal: `move_unknown`, `order_elsewhere`.
            PpnError: the node that has the VM does not say which move it is in.
        """
        return (await self._look(vm, asked)).shown()

    async def end(self, vm: str, order: EndOrder, asked: Asked) -> MoveReport:
        """End a move as an operator says; how far that is.

        Args:
            vm: whose.
            order: what is said.
            asked: who waits.

        Raises:
            Refusal: see `judge`; `move_unknown`, `order_elsewhere`; nothing was done.
            PpnError: a node does not say.
        """
        found = await self._look(vm, asked)
        keep = judge(found, order)
        for name, side in zip((found.intent.source, found.intent.node), found.sides, strict=True):
            if side.stage == "gone" and name not in found.left and keep != "neither":
                await self._check_nothing(vm, name, asked)
        source, destination = found.sides
        log.warning(
            "move ended by an operator",
            vm=vm,
            move=found.intent.move,
            source=found.intent.source,
            source_found=source.stage,
            node=found.intent.node,
            node_found=destination.stage,
            keep=order.keep or "",
            gone=order.gone,
            left=sorted(found.left),
            correlation_id=asked.correlation_id,
        )
        self.mover.ended.pop(vm, None)
        problem = _why(found.intent, keep)
        return await self.mover.take_on(found.intent, asked, Will(keep=keep), problem)

    async def _look(self, vm: str, asked: Asked) -> Found:
        await self._until_nobody_drives(vm)
        if await self.mover.maker.peers.stages(vm) - {"told"}:
            raise _refusal(
                "order_elsewhere", f"another controller has the move of vm {vm}", "ask there"
            )
        lines = Lines(self.mover.remover, self.mover.clock, self.mover.port, asked.correlation_id)
        intent = self.mover.maker.journal.intents.get(vm)
        if intent is None or not intent.move:
            intent = await self._told(vm, lines)
        known = self.mover.remover.registry.nodes
        left = frozenset({intent.source, intent.node} - known.keys())
        source, destination = await asyncio.gather(
            *(self._view(lines, vm, node, left) for node in (intent.source, intent.node))
        )
        return Found(intent, source, destination, left)

    async def _until_nobody_drives(self, vm: str) -> None:
        """A lost move is looked at again now and then; one that is not goes on for longer."""
        end = self.mover.clock() + LOOK_SECONDS
        while vm in self.mover.under_way:
            if self.mover.clock() >= end:
                raise _refusal(
                    "move_not_lost",
                    f"this controller is moving vm {vm} just now",
                    f"ppn vm move {vm} NODE shows how far it is; --cancel calls it back",
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _told(self, vm: str, lines: Lines) -> Intent:
        """The move as a node tells of it that has the VM neither wholly nor not at all."""
        registry = self.mover.remover.registry
        for held in registry.in_transit(self.mover.clock()):
            if held.report.id != vm:
                continue
            view = await lines.view(vm, held.node)
            if view.move and view.peer:
                comes = view.stage in ARRIVING
                source, node = (view.peer, held.node) if comes else (held.node, view.peer)
                return Intent(
                    id=vm, owner=MOVING, digest="", node=node, move=view.move, source=source
                )
        raise _refusal("move_unknown", f"vm {vm} is on no way to another node", "list VMs")

    async def _view(
        self, lines: Lines, vm: str, node: str, left: frozenset[str]
    ) -> MoveView | None:
        if node in left:
            return MoveView(vm=vm, stage="gone")
        try:
            return await lines.view(vm, node)
        except PpnError as error:
            log.info("node does not say", vm=vm, node=node, code=error.code)
            return None

    async def _check_nothing(self, vm: str, node: str, asked: Asked) -> None:
        """Refuse to start a VM elsewhere while a node may run it without a record of it.

        Raises:
            Refusal: `move_end_unsafe`.
            PpnError: the node does not say.
        """
        try:
            answer = await self.mover.remover.send(vm, node, asked, "GET", "/inspect")
            found = understood(Inspection, answer, node)
        except PpnError as error:
            if error.code != "vm_unknown":
                raise
            return
        left = [
            *(one.name for one in found.files),
            *(["a domain"] if found.domain_xml else []),
            *([f"process {found.pid}"] if found.pid is not None else []),
            *(f"{one.what}: {one.message}" for one in found.unread),
        ]
        if left:
            raise _refusal(
                "move_end_unsafe",
                f"{node} has no record of vm {vm}, and yet it may run there: {', '.join(left)}",
                f"end and remove on {node} what is left of it, then ask again",
            )


def _silent(side: Side) -> bool:
    return side.stage == "unknown"


def _order(keep: Keep, names: dict[str, str]) -> EndOrder:
    kept = names.get(keep)
    return EndOrder(keep=kept, gone=tuple(name for name in names.values() if name != kept))


def _contradiction(found: Found, keep: Keep) -> str:
    """Why what an operator says cannot be done."""
    vm, source, node = found.intent.id, found.intent.source, found.intent.node
    own = f"{node} has a VM {vm} of its own, not by this move"
    if found.sides[1].stage == "here":
        return f"{own}, which stays: with that of {source} there would be two"
    holder, other = (source, node) if found.sides[0].stage == "moved" else (node, source)
    return f"{other} has not all of vm {vm}: {holder} has"


def _why(intent: Intent, keep: Keep) -> PpnError | None:
    """What callers hear of a move that did not end where it was to."""
    vm = intent.id
    if keep == "source":
        return PpnError(
            f"an operator ended the move of vm {vm}: {intent.source} has it again",
            code="move_reclaimed",
            hint="move it again whenever you like",
        )
    if keep == "neither":
        return PpnError(
            f"an operator ended the move of vm {vm}: nothing of it is kept",
            code="move_discarded",
            hint="if it is a tenant's, destroy it there too: that frees its part of the ceiling",
        )
    return None


def _refusal(code: str, message: str, hint: str) -> Refusal:
    return Refusal(message, code=code, constraint="move of a VM", hint=hint)
