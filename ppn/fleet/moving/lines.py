"""What a controller says to the two nodes of a move, and what they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppn.errors import PpnError
from ppn.fleet.journal import Intent
from ppn.fleet.making import Asked
from ppn.fleet.nodes import understood
from ppn.fleet.removing import Remover
from ppn.wire.moving import (
    ArrivalOrder,
    DepartureOrder,
    MoveView,
    Offer,
    Prepared,
    Step,
    StepOrder,
)

CALL_SECONDS = 30.0
# The VM starts within it.
START_SECONDS = 150.0


@dataclass(frozen=True)
class Lines:
    """The way to the nodes.

    Args:
        remover: sends to the node that is named.
        clock: seconds that never jump.
        port: of every node's proxy.
        correlation_id: of the request that led to the move.
    """

    remover: Remover
    clock: Callable[[], float]
    port: int
    correlation_id: str

    async def view(self, vm: str, node: str) -> MoveView:
        """How far a node is.

        Raises:
            PpnError: it does not say.
        """
        return understood(MoveView, await self._send(vm, node, "GET", "/move"), node)

    async def prepare(self, intent: Intent, offer: Offer | None) -> str:
        """Have the destination keep room, or open its door again; returns the sender's secret.

        Args:
            intent: the move.
            offer: what the VM needs; None where room is kept already.

        Raises:
            PpnError: it cannot or may not, or does not say.
        """
        order = ArrivalOrder(move=intent.move, source=intent.source, offer=offer)
        answer = await self._send(
            intent.id, intent.node, "POST", "/arrival", order.model_dump(mode="json")
        )
        return understood(Prepared, answer, intent.node).secret

    async def depart(self, intent: Intent, secret: str) -> None:
        """Have the source send the VM, or go on with it.

        Raises:
            PpnError: it cannot or may not, or does not say.
        """
        known = self.remover.registry.nodes.get(intent.node)
        if known is None:
            raise PpnError(f"node {intent.node} is not in the inventory", code="node_unknown")
        order = DepartureOrder(
            move=intent.move,
            node=intent.node,
            address=str(known.address),
            port=self.port,
            secret=secret,
        )
        await self._send(
            intent.id, intent.source, "POST", "/departure", order.model_dump(mode="json")
        )

    async def step(self, intent: Intent, node: str, step: Step) -> None:
        """Have a node take one step.

        Raises:
            PpnError: it cannot or may not, or does not say.
        """
        body = StepOrder(move=intent.move, step=step).model_dump(mode="json")
        seconds = START_SECONDS if step in ("settle", "back", "reclaim") else CALL_SECONDS
        await self._send(intent.id, node, "POST", "/move", body, seconds)

    async def _send(
        self,
        vm: str,
        node: str,
        method: str,
        what: str,
        body: dict[str, Any] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> dict[str, Any]:
        asked = Asked(self.correlation_id, self.clock() + seconds)
        return await self.remover.send(vm, node, asked, method, what, body)
