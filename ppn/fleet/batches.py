"""Several VMs in one request: all of them or none, or each for itself (FLEET-12)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ppn.errors import PpnError, Refusal
from ppn.fleet.identity import batch_id, differs, vm_id
from ppn.fleet.making import Asked, Made, Maker
from ppn.fleet.model import demand_of
from ppn.fleet.node import Reservation
from ppn.fleet.removing import Remover
from ppn.log import get_logger
from ppn.wire.fleet import BatchAnswer, BatchItem, BatchOrder, VmOrder
from ppn.wire.problems import problem_of

TAKE_BACK_SECONDS = 30.0

log = get_logger("fleet")


@dataclass
class Batches:
    """Has batches made.

    Args:
        maker: makes each VM.
        remover: takes back what was made of a batch that failed.
        under_way: batches in the making, each with its order.
    """

    maker: Maker
    remover: Remover
    under_way: dict[str, tuple[BatchOrder, asyncio.Task[BatchAnswer]]] = field(default_factory=dict)

    async def make(self, order: BatchOrder, key: str, asked: Asked) -> BatchAnswer:
        """Have a batch made.

        Until the last VM runs, the journal says that the batch is open; a controller that dies
        before takes back all of it when it starts again. The work goes on when the caller no
        longer waits; asking again joins it.

        Args:
            order: the VMs.
            key: the caller's idempotency key.
            asked: who waits.

        Raises:
            PpnError: not per item, and one VM could not be made; nothing of the batch is left, or
                what is left is taken back as soon as its node can be reached.
        """
        batch = batch_id(order.vms[0].owner, key)
        vms = {vm_id(one.owner, key, at): one for at, one in enumerate(order.vms)}
        if order.per_item:
            items = await asyncio.gather(*(self._item(vm, vms[vm], asked) for vm in vms))
            return BatchAnswer(id=batch, items=tuple(items))
        known = self.under_way.get(batch)
        if known is not None and known[0] != order:
            raise differs(batch)
        if known is None:
            task = asyncio.create_task(self._whole(batch, vms, asked))
            task.add_done_callback(lambda done: self._ended(batch, done))
            self.under_way[batch] = (order, task)
            self.maker.open_batches[batch] = frozenset(vms)
        else:
            task = known[1]
        return await asyncio.shield(task)

    def _ended(self, batch: str, task: asyncio.Task[BatchAnswer]) -> None:
        del self.under_way[batch], self.maker.open_batches[batch]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.info("batch not made", batch=batch, error=str(error))

    async def _whole(self, batch: str, vms: Mapping[str, VmOrder], asked: Asked) -> BatchAnswer:
        """Make all of a batch, or take back what was made of it."""
        whole = replace(asked, batch=batch)
        placed = self._reserve(vms)
        results = await asyncio.gather(
            *(self.maker.make(vm, one, whole, placed.get(vm)) for vm, one in vms.items()),
            return_exceptions=True,
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            await self._take_back(tuple(vms), whole)
            raise failed[0]
        made = [result for result in results if isinstance(result, Made)]
        # First: other controllers are never to find neither.
        self.maker.tell(*made)
        await asyncio.to_thread(self.maker.journal.end, *vms)
        return BatchAnswer(
            id=batch,
            items=tuple(
                BatchItem(id=vm, placed=one.placed) for vm, one in zip(vms, made, strict=True)
            ),
        )

    def _reserve(self, vms: Mapping[str, VmOrder]) -> dict[str, Reservation]:
        """Room for all that is not there yet, before anything is begun."""
        registry, now = self.maker.registry, self.maker.clock()
        registry.check_warm(now)
        new = {vm: demand_of(one) for vm, one in vms.items() if not registry.find(vm, now)}
        for vm in new:
            self.maker.check_decided(vm)
        try:
            placed = registry.reserve_all(new, now)
        except Refusal as refusal:
            for vm, demand in new.items():
                self.maker.decisions.failed(vm, demand, refusal)
            raise
        return {vm: one for vm, one in placed.items() if isinstance(one, Reservation)}

    async def _item(self, vm: str, order: VmOrder, asked: Asked) -> BatchItem:
        try:
            made = await self.maker.make(vm, order, asked)
        except PpnError as error:
            return BatchItem(id=vm, problem=problem_of(error, correlation_id=asked.correlation_id))
        return BatchItem(id=vm, placed=made.placed)

    async def _take_back(self, vms: tuple[str, ...], asked: Asked) -> None:
        """Remove what the journal says was begun; what cannot be now stays open in it."""
        asked = replace(asked, deadline=self.maker.clock() + TAKE_BACK_SECONDS)
        for vm in vms:
            intent = self.maker.journal.intents.get(vm)
            if intent is None or intent.batch != asked.batch:
                continue
            try:
                await self.remover.remove_from(vm, intent.node, asked)
            except PpnError as error:
                log.warning("not taken back yet", vm=vm, node=intent.node, error=error.message)
                continue
            await asyncio.to_thread(self.maker.journal.end, vm)
