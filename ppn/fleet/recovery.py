"""What a controller that stopped in the midst of something does about it when it starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from ppn.errors import PpnError
from ppn.fleet.journal import Intent
from ppn.fleet.making import Asked, Maker
from ppn.fleet.nodes import vm_in
from ppn.fleet.removing import Remover
from ppn.log import get_logger

POLL_SECONDS = 5.0
CALL_SECONDS = 30.0
# What a call that ended without an answer sent is not on its way to an agent for longer than this.
SETTLE_SECONDS = 10.0
# The outcome of what was begun on a node that is not in the inventory any more.
NODE_REMOVED = "node_removed"

log = get_logger("fleet")


@dataclass
class Recovery:
    """Brings every open intent to its end (FLEET-19).

    A VM of its own stays if its node has it. A batch that was not whole when the controller stopped
    is taken back, unless another controller was asked for it since: nobody was told that it exists.
    What was begun on a node that has left the inventory is given up, so that it can be asked for
    anew: the pool has lost that node with all that is on it.

    Args:
        maker: has the journal, and says what is under way.
        remover: takes back.
        idle: intents that nobody works on, and since when.
    """

    maker: Maker
    remover: Remover
    idle: dict[Intent, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Go on for ever; what cannot be decided now is tried again."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Decide what can be decided now; a node that is silent holds up its own VMs alone."""
        now = self.maker.clock()
        open_ones = self.maker.journal.intents.values()
        # A move is brought to its end by who moves VMs.
        intents = [one for one in open_ones if not one.move and not self._busy(one)]
        self.idle = {one: self.idle.get(one, now) for one in intents}
        ready = [one for one, since in self.idle.items() if now - since >= SETTLE_SECONDS]
        ready.sort(key=lambda one: one.node)
        nodes = [tuple(group) for _, group in groupby(ready, key=lambda one: one.node)]
        await asyncio.gather(*(self._decide_all(group) for group in nodes))

    def _busy(self, intent: Intent) -> bool:
        """Whether this process is at it; a VM that is made waits for the rest of its batch."""
        return intent.id in self.maker.under_way or intent.batch in self.maker.open_batches

    async def _decide_all(self, intents: Iterable[Intent]) -> None:
        for intent in intents:
            # Those before it took their time: it may have ended, or begun anew.
            if self.maker.journal.intents.get(intent.id) == intent and not self._busy(intent):
                await self._decide(intent)

    async def _decide(self, intent: Intent) -> None:
        asked = Asked(f"recovery-{intent.id}"[:64], self.maker.clock() + CALL_SECONDS)
        try:
            if intent.node not in self.maker.registry.nodes:
                outcome = self._given_up(intent)
            elif intent.batch:
                outcome = await self._taken_back(intent, asked)
            else:
                outcome = await self._outcome(intent, asked)
            await asyncio.to_thread(self.maker.journal.end, intent.id)
        except PpnError as error:
            log.info("not decided yet", vm=intent.id, node=intent.node, error=error.message)
            return
        except Exception:
            # A full disk, or an answer that is none, must not end the recovery of all the others.
            log.exception("not decided yet", vm=intent.id, node=intent.node)
            return
        log.info("decided", vm=intent.id, node=intent.node, outcome=outcome)

    def _given_up(self, intent: Intent) -> str:
        log.warning(
            "what became of a vm is not known",
            vm=intent.id,
            node=intent.node,
            batch=intent.batch,
            code=NODE_REMOVED,
            hint="if that node still runs, destroy the vm there: it may be made anew elsewhere",
        )
        return NODE_REMOVED

    async def _taken_back(self, intent: Intent, asked: Asked) -> str:
        """Remove a VM of a batch, unless a caller of another controller was told of it.

        Raises:
            PpnError: it could not be removed, or another controller is at it now.
        """
        stages = await self.maker.peers.stages(intent.id)
        if "told" in stages:
            registry, now = self.maker.registry, self.maker.clock()
            registry.check_warm(now)
            # What a caller was told of may be on another node; then this one is of no use.
            if {held.node for held in registry.find(intent.id, now)} <= {intent.node}:
                return "kept"
        elif stages:
            raise PpnError(f"vm {intent.id} is asked for elsewhere", code="order_elsewhere")
        await self.remover.remove_from(intent.id, intent.node, asked)
        return "taken back"

    async def _outcome(self, intent: Intent, asked: Asked) -> str:
        """What became of a single VM, as its node says.

        Raises:
            PpnError: the node does not say, or the VM is still in the making.
        """
        try:
            answer = await self.remover.send(intent.id, intent.node, asked, "GET", "")
        except PpnError as error:
            if error.code != "vm_unknown":
                raise
            self.maker.registry.forget(intent.id, intent.node, self.maker.clock())
            return "not made"
        if vm_in(answer, intent.node).state == "creating":
            raise PpnError(f"vm {intent.id} is in the making", code="vm_creating")
        return "made"
