"""What a controller that stopped in the midst of something does about it when it starts again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from ppn.errors import PpnError
from ppn.fleet.journal import Intent
from ppn.fleet.making import Asked, Maker
from ppn.fleet.removing import Remover

POLL_SECONDS = 5.0
CALL_SECONDS = 30.0
# What an earlier process sent is not on its way to an agent for longer than this.
SETTLE_SECONDS = 10.0

log = structlog.get_logger("fleet")


@dataclass
class Recovery:
    """Brings every open intent to its end (FLEET-19).

    A VM of its own stays if its node has it. A batch that was not whole when the controller stopped
    is taken back: nobody was told that it exists.

    Args:
        maker: has the journal, and says what is under way.
        remover: takes back.
    """

    maker: Maker
    remover: Remover

    async def run(self) -> None:
        """Go on for ever; what cannot be decided now is tried again."""
        await asyncio.sleep(SETTLE_SECONDS)
        while True:
            for intent in self.maker.journal.intents.values():
                if intent.id not in self.maker.under_way:
                    await self._decide(intent)
            await asyncio.sleep(POLL_SECONDS)

    async def _decide(self, intent: Intent) -> None:
        asked = Asked(f"recovery-{intent.id}"[:64], self.maker.clock() + CALL_SECONDS)
        try:
            if intent.batch:
                await self.remover.remove_from(intent.id, intent.node, asked)
                outcome = "taken back"
            else:
                outcome = await self._outcome(intent, asked)
        except PpnError as error:
            log.info("not decided yet", vm=intent.id, node=intent.node, error=error.message)
            return
        await asyncio.to_thread(self.maker.journal.end, intent.id)
        log.info("decided", vm=intent.id, node=intent.node, outcome=outcome)

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
        if answer["vm"]["state"] == "creating":
            raise PpnError(f"vm {intent.id} is in the making", code="vm_creating")
        return "made"
