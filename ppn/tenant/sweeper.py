"""Finds out what became of what no request is at any more, and says so to the store.

A proxy that dies, or a controller that does not answer in time, leaves a reservation, a change or a
removal open. It stays counted until every fleet controller has said how it ended: nothing that may
still run is ever freed. What is done about it stands in the audit log like any change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address

import httpx

from ppn.errors import PpnError
from ppn.log import get_logger
from ppn.pool.tls import NO_TLS
from ppn.tenant.asking import Asking
from ppn.tenant.model import Allocation
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.verdict import Verdict, concluded, decide

AT_ONCE = 8

log = get_logger("sweeper")


@dataclass
class Swept:
    """Something open, as the audit log names what is done about it.

    Args:
        operation: for example `sweep_remove`.
        source: the address of the proxy that does it.
        correlation_id: as the controllers are told.
        vm: it is about.
        tenant: whose.
    """

    operation: str
    source: str
    correlation_id: str
    vm: str
    tenant: str
    token_id: str = ""
    intended: bool = False


@dataclass
class Sweeper:
    """Brings everything open in the store to its end; any number may run at once.

    Args:
        store: where it is open.
        controllers: base URLs of every fleet controller of the pool.
        address: the mesh address to ask from; None for any.
        clock: the time, as the store's leases count it.
        records: the audit log.
        removals: those it has begun, by the name of the operation and in the order they were last
            tried: how the audit log names each, and the index of its intent.
    """

    store: Store
    controllers: Sequence[str]
    address: IPv4Address | None
    clock: Callable[[], datetime]
    records: Records
    removals: dict[str, tuple[Swept, int]] = field(default_factory=dict)

    async def run(self, seconds: float) -> None:
        """Go on for ever.

        Args:
            seconds: between two looks.
        """
        while True:
            try:
                await self.sweep()
            except PpnError as error:
                log.warning("not swept", error=str(error))
            await asyncio.sleep(seconds)

    async def sweep(self) -> int:
        """Look once at everything open; returns how much still is.

        Removals come last, and a few at a time: a node that is silent lets each take long.

        Raises:
            StoreUnavailable: the store cannot be used.
        """
        expired = await asyncio.to_thread(self.store.expired, self.clock())
        await self._end_others({one.operation for one in expired})
        if not expired:
            return 0
        gate = asyncio.Semaphore(AT_ONCE)
        source = str(self.address) if self.address is not None else None
        transport = httpx.AsyncHTTPTransport(verify=NO_TLS, local_address=source)
        async with httpx.AsyncClient(transport=transport) as client:
            asking = Asking(client, self.controllers)

            async def look(one: Allocation) -> Verdict | None:
                async with gate:
                    return await self._look(asking, one)

            verdicts = await asyncio.gather(*(look(one) for one in expired))
            left = [pair for pair in zip(expired, verdicts, strict=True) if pair[1] is not None]
            await self._remove(
                [(one, what.uuid) for one, what in left if what and what.what == "remove"], asking
            )
        return len(left)

    async def _look(self, asking: Asking, one: Allocation) -> Verdict | None:
        """Find out what became of something open; None when that ended it."""
        verdict = decide(one, await asking.views(one))
        log.info("swept", vm=one.vm, tenant=one.tenant, state=one.state, what=verdict.what,
                 reason=verdict.reason)  # fmt: skip
        if verdict.what in ("wait", "remove"):
            return verdict
        try:
            return None if await self._conclude(one, verdict) else verdict
        except PpnError as error:
            log.warning("not swept", vm=one.vm, error=str(error))
            return verdict

    async def _conclude(self, one: Allocation, verdict: Verdict) -> bool:
        """Say how something open ended, unless something happened since; whether it was said."""
        swept, index = self.removals.pop(one.operation, (None, 0))
        if swept is None:
            what = "remove" if verdict.what == "gone" else verdict.what
            swept = self._named(one, what)
            index = await self.records.begin(swept)
        said, code = False, "store_unavailable"
        try:
            left = concluded(one, verdict, self.clock())
            said = await asyncio.to_thread(self.store.replace, one, left)
            code = "" if said else "vm_busy"
        finally:
            await self.records.end(swept, index, code)
        return said

    async def _remove(self, wanted: list[tuple[Allocation, str]], asking: Asking) -> None:
        """Ask the pool for some of the removals, those first that were not tried for longest."""
        tried = {operation: place for place, operation in enumerate(self.removals)}
        wanted.sort(key=lambda pair: tried.get(pair[0].operation, -1))
        await asyncio.gather(*(self._remove_one(*pair, asking) for pair in wanted[:AT_ONCE]))

    async def _remove_one(self, one: Allocation, uuid: str, asking: Asking) -> None:
        """Ask for a removal; what it did is seen at the next look."""
        try:
            if await asyncio.to_thread(self.store.allocation, one.tenant, one.vm) != one:
                # A request is at it again.
                return
            begun = self.removals.pop(one.operation, None)
            if begun is None:
                swept = self._named(one, "remove")
                begun = swept, await self.records.begin(swept)
            self.removals[one.operation] = begun
        except PpnError as error:
            log.info("not removed", vm=one.vm, error=str(error))
            return
        # Once that was asked the removal may end, and its key be used for another VM.
        await asking.remove(one, uuid)

    async def _end_others(self, expired: set[str]) -> None:
        """Write down that removals begun here were ended, or taken up again, by somebody else."""
        for operation in self.removals.keys() - expired:
            swept, index = self.removals.pop(operation)
            await self.records.end(swept, index, "ended_elsewhere")

    def _named(self, one: Allocation, what: str) -> Swept:
        source = "" if self.address is None else str(self.address)
        return Swept(f"sweep_{what}", source, f"sweep-{one.operation}", one.vm, one.tenant)
