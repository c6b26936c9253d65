"""The other controllers: asked before an order that may have been given to them too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal, cast

import httpx

from ppn.errors import Refusal
from ppn.log import get_logger
from ppn.pool.tls import NO_TLS

SECONDS = 2.0
POLL_SECONDS = 0.05
# How far a controller is with a VM: its intent is written and it asks the others; it makes it, or
# may have made it; it waits for what another one makes; it has told a caller of it.
Stage = Literal["checking", "going", "waiting", "told"]

log = get_logger("fleet")


@dataclass(frozen=True)
class Known:
    """What another controller has to do with a VM.

    Args:
        stage: how far it is.
        node: where it makes it, or has made it; empty when it has not begun.
    """

    stage: Stage
    node: str = ""


@dataclass
class Peers:
    """The other controllers of the pool.

    Each writes its own intent first and asks the others then: of two that have the same order at
    once, at least one sees the other. The one that has not asked yet gives way to one that has;
    of two that are both asking, the one with the lower address goes on, once the other gave way.

    Args:
        own: this controller's mesh address.
        others: theirs.
        port: all controllers'.
    """

    own: IPv4Address
    others: Sequence[IPv4Address]
    port: int

    async def check_alone(self, vm: str) -> frozenset[str]:
        """Refuse an order that another controller is carrying out.

        A controller that does not answer is passed over: one that is dead must not stop the rest.

        Returns:
            The nodes on which others have made it, as far as they remember: it may be there still.

        Raises:
            Refusal: `order_elsewhere`.
        """
        found = await asyncio.gather(*(self._check(other, vm) for other in self.others))
        return frozenset(node for node in found if node)

    async def stages(self, vm: str) -> frozenset[Stage]:
        """How far other controllers are with a VM; empty when none that answers knows of it."""
        found = await asyncio.gather(*(self.known(other, vm) for other in self.others))
        return frozenset(known.stage for known in found if known is not None)

    async def _check(self, other: IPv4Address, vm: str) -> str:
        while known := await self.known(other, vm):
            if known.stage == "going" or (known.stage == "checking" and other < self.own):
                raise elsewhere(vm, f"is being made by the controller at {other}")
            if known.stage != "checking":
                return known.node
            await asyncio.sleep(POLL_SECONDS)
        return ""

    async def known(self, other: IPv4Address, vm: str) -> Known | None:
        """What one of the others has to do with a VM; None when nothing, or when it is silent.

        Args:
            other: its address.
            vm: the VM.
        """
        try:
            transport = httpx.AsyncHTTPTransport(verify=NO_TLS, local_address=str(self.own))
            async with httpx.AsyncClient(transport=transport, timeout=SECONDS) as client:
                answer = await client.get(f"http://{other}:{self.port}/v1/intents/{vm}")
                if answer.status_code != httpx.codes.OK:
                    return None
                said = answer.json()
                return Known(cast(Stage, said.get("stage", "going")), said.get("node", ""))
        except (httpx.HTTPError, ValueError) as error:
            log.warning("controller not asked", controller=str(other), error=str(error))
            return None


def elsewhere(vm: str, why: str) -> Refusal:
    """The refusal of an order that another controller has to do with."""
    return Refusal(
        f"vm {vm} {why}",
        code="order_elsewhere",
        constraint="one controller for an order",
        hint="ask again: what it made is found then",
    )
