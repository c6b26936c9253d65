"""The other controllers: asked before an order that may have been given to them too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import httpx
import structlog

from ppn.errors import Refusal

SECONDS = 2.0

log = structlog.get_logger("fleet")


@dataclass
class Peers:
    """The other controllers of the pool.

    Each writes its own intent first and reads the others' then: of two that have the same order
    at once, at least one sees the other, and the one with the lower address goes on.

    Args:
        own: this controller's mesh address.
        others: theirs.
        port: all controllers'.
    """

    own: IPv4Address
    others: Sequence[IPv4Address]
    port: int

    async def check_alone(self, vm: str) -> None:
        """Refuse an order that another controller is carrying out.

        A controller that does not answer is passed over: one that is dead must not stop the rest.

        Raises:
            Refusal: `order_elsewhere`.
        """
        claims = await asyncio.gather(*(self._claims(other, vm) for other in self.others))
        for other, claimed in zip(self.others, claims, strict=True):
            if claimed and other < self.own:
                raise Refusal(
                    f"vm {vm} is being made by the controller at {other}",
                    code="order_elsewhere",
                    constraint="one controller for an order",
                    hint="ask again: what it made is found then",
                )

    async def _claims(self, other: IPv4Address, vm: str) -> bool:
        try:
            transport = httpx.AsyncHTTPTransport(local_address=str(self.own))
            async with httpx.AsyncClient(transport=transport, timeout=SECONDS) as client:
                answer = await client.get(f"http://{other}:{self.port}/v1/intents/{vm}")
        except httpx.HTTPError as error:
            log.warning("controller not asked", controller=str(other), error=str(error))
            return False
        return answer.status_code == httpx.codes.OK
