"""What a change does: ceiling, intent, pool, outcome, in this order, whatever happens between.

A change that ends without anybody knowing what became of it leaves its part of the ceiling taken,
and the sweeper finds out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from ppn.errors import PpnError, Refusal
from ppn.fleet.identity import agrees, differs, vm_id
from ppn.host.spec import Disk
from ppn.tenant.fleet import Call, Fleet, surely_not_done
from ppn.tenant.guard import Visit
from ppn.tenant.limits import Lanes
from ppn.tenant.model import Allocation, Amount
from ppn.tenant.policy import amount_of
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.threads import Threads
from ppn.tenant.transitions import busy
from ppn.wire.fleet import PlacedVm, ResizeOrder, VmOrder
from ppn.wire.heartbeat import VmReport
from ppn.wire.tenant import TenantOrder

QUESTION_SECONDS = 15.0

T = TypeVar("T")


@dataclass
class Changes:
    """Carries out what a tenant asks for.

    Args:
        store: what every VM takes.
        threads: its calls, away from the loop.
        gates: one of a tenant's transactions at a time; more would only wait for one another, each
            with a connection that others need.
        records: the audit log.
        fleet: the controllers.
        seconds: the longest a change waits for the pool.
        lease_seconds: within so many a change has ended, whatever became of it.
    """

    store: Store
    threads: Threads
    gates: Lanes
    records: Records
    fleet: Fleet
    seconds: float
    lease_seconds: float

    async def create(self, visit: Visit, order: TenantOrder, key: str | None) -> tuple[Any, bool]:
        """Have a VM made; the same order under the same key is one VM.

        Args:
            visit: the request.
            order: what it shall be.
            key: the caller's; None for an order that is never repeated.

        Returns:
            The placed VM, and whether it was not known before.

        Raises:
            PpnError: `quota_exceeded`, `audit_unavailable`, or the pool's.
        """
        wanted = VmOrder(owner=visit.tenant, **dict(order))
        key = key or secrets.token_hex(16)
        visit.vm = vm_id(wanted.owner, key)
        vm, amount, lease = visit.vm, amount_of(wanted), self.lease_seconds
        there = await self._stored(
            visit,
            lambda now: self.store.reserve(wanted.owner, vm, amount, lease_seconds=lease, now=now),
        )
        known = there.state == "settled"
        # Until the pool is asked; and when it says so.
        nothing_made = True
        try:
            async with self.records.intent(visit):
                nothing_made = False
                try:
                    work = self._find(visit, wanted) if known else self._make(visit, wanted, key)
                    answer = await work
                except PpnError as error:
                    nothing_made = known or surely_not_done(error)
                    raise
                await self._settle(visit, answer)
        except PpnError:
            if nothing_made:
                await self._stored(visit, lambda _: self.store.release(vm))
            raise
        return answer, not known

    async def _make(self, visit: Visit, wanted: VmOrder, key: str) -> Any:
        return await self.ask(visit, "POST", "/v1/vms", wanted.model_dump(mode="json"), key)

    async def _find(self, visit: Visit, wanted: VmOrder) -> Any:
        """The VM that an order under the same key was made to.

        It is not ordered again: if it is gone, another of the order's size might not fit any more.
        """
        try:
            answer = await self.ask(visit, "GET", f"/v1/vms/{visit.vm}")
        except PpnError as error:
            if error.code != "vm_unknown":
                raise
            raise Refusal(
                f"vm {visit.vm} was made under this idempotency key, and the pool has it no more",
                code="vm_lost",
                constraint="idempotency key",
                hint="destroy it, then order it again",
            ) from error
        if not agrees(PlacedVm.model_validate(answer, strict=False).vm, wanted):
            raise differs(visit.vm)
        return answer

    async def _settle(self, visit: Visit, answer: Any) -> None:
        """Say that a VM is made; one whose reservation has ended meanwhile is taken back."""
        try:
            await self._stored(visit, lambda now: self.store.settle(visit.vm, now=now))
        except Refusal:
            made = PlacedVm.model_validate(answer, strict=False).vm.uuid
            await self.ask(visit, "DELETE", _removal(visit.vm, made))
            raise

    async def destroy(self, visit: Visit) -> None:
        """Have a VM removed; what it takes is free once nothing is left of it.

        Raises:
            PpnError: `vm_busy`, `audit_unavailable`, or the pool's.
        """
        begun: Allocation | None = None
        gone: bool | None = None
        vm, lease = visit.vm, self.lease_seconds
        try:
            async with self.records.intent(visit):
                # Not before: the sweeper carries out a removal that it finds begun (TEN-10).
                begun = await self._stored(
                    visit,
                    lambda now: self.store.begin_removal(vm, lease_seconds=lease, now=now),
                )
                gone = await self._remove(visit, begun)
        except PpnError as error:
            if surely_not_done(error):
                gone = False
            raise
        finally:
            if begun is not None and gone is not None:
                await self._stored(visit, partial(self._end_removal, begun, gone))

    def _end_removal(self, begun: Allocation, gone: bool, now: datetime) -> None:
        self.store.end_removal(begun, gone=gone, now=now)

    async def _remove(self, visit: Visit, begun: Allocation) -> bool:
        """Have the VM removed that this removal is about, and no later one of the same key.

        A controller may carry out late what another one did long ago.
        """
        try:
            found = await self.ask(visit, "GET", f"/v1/vms/{visit.vm}")
            if not await self._stored(visit, lambda _: self.store.is_open(begun)):
                # Somebody else ended it; what was found may have been made since.
                return True
            uuid = PlacedVm.model_validate(found, strict=False).vm.uuid
            await self.ask(visit, "DELETE", _removal(visit.vm, uuid))
        except PpnError as error:
            # Every node is heard, and none has it.
            if error.code != "vm_unknown":
                raise
        return True

    async def resize(self, visit: Visit, order: ResizeOrder) -> Any:
        """Give a stopped VM other figures.

        Raises:
            PpnError: `quota_exceeded`, `vm_busy`, `audit_unavailable`, or the pool's.
        """
        figures = order.model_dump(exclude_none=True)
        to = replace(visit.own.amount, **figures)
        return await self._change(visit, to, "PATCH", "", figures)

    async def attach(self, visit: Visit, disk: Disk) -> Any:
        """Give a VM one more disk.

        Raises:
            PpnError: `quota_exceeded`, `vm_busy`, `audit_unavailable`, or the pool's.
        """
        amount = visit.own.amount
        to = replace(amount, disk_gib=amount.disk_gib + disk.size_gib)
        return await self._change(visit, to, "POST", "/disks", disk.model_dump())

    async def detach(self, visit: Visit, disk: str) -> Any:
        """Take a disk from a VM, and its data with it.

        Raises:
            PpnError: `disk_unknown`, `vm_busy`, `audit_unavailable`, or the pool's.
        """
        placed = PlacedVm.model_validate(
            await self.ask(visit, "GET", f"/v1/vms/{visit.vm}"), strict=False
        )
        others = tuple(one for one in placed.vm.disks if one.name != disk)
        if len(others) == len(placed.vm.disks):
            raise Refusal(
                f"vm {visit.vm} has no disk {disk}",
                code="disk_unknown",
                constraint="VM disks",
                hint="show the VM",
            )
        left = amount_of(placed.vm.model_copy(update={"disks": others}))
        # One that an operator attached was never counted.
        to = replace(visit.own.amount, disk_gib=min(visit.own.amount.disk_gib, left.disk_gib))
        return await self._change(visit, to, "DELETE", f"/disks/{disk}?discard=true")

    async def plain(self, visit: Visit, what: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make a change that takes nothing of a ceiling.

        Args:
            visit: the request.
            what: behind the VM's path, for example `/stop`.
            body: JSON.

        Raises:
            PpnError: `audit_unavailable`, or the pool's.
        """
        async with self.records.intent(visit):
            return await self.ask(visit, "POST", f"/v1/vms/{visit.vm}{what}", body)

    async def _change(
        self,
        visit: Visit,
        to: Amount,
        method: str,
        what: str,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make a change after which a VM takes another amount."""
        begun = await self._begin(visit, to)
        takes: Amount | None = None
        try:
            async with self.records.intent(visit):
                answer = await self.ask(visit, method, f"/v1/vms/{visit.vm}{what}", body)
            # Not `to`: a disk that was there already takes nothing more, nor gives back twice.
            takes = amount_of(VmReport.model_validate(answer["vm"], strict=False))
            return answer
        except PpnError as error:
            if not visit.intended or surely_not_done(error):
                takes = begun.amount
            raise
        finally:
            if takes is not None:
                await self._stored(visit, partial(self._end_change, begun, takes))

    def _end_change(self, begun: Allocation, amount: Amount, now: datetime) -> None:
        self.store.end_change(begun, amount, now=now)

    async def _begin(self, visit: Visit, to: Amount) -> Allocation:
        vm, lease = visit.vm, self.lease_seconds
        begun = await self._stored(
            visit, lambda now: self.store.begin_change(vm, to, lease_seconds=lease, now=now)
        )
        if begun.amount != visit.own.amount:
            # Another change came between; `to` was reckoned from what no longer holds.
            await self._stored(visit, partial(self._end_change, begun, begun.amount))
            raise busy(visit.vm, "another change of it came first")
        return begun

    async def ask(
        self,
        visit: Visit,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Any:
        """Ask the pool about a request's VM, or for what it wants.

        Raises:
            PpnError: see `Fleet.ask`.
        """
        seconds = min(self.seconds, QUESTION_SECONDS) if method == "GET" else self.seconds
        return await self.fleet.ask(Call(method, path, visit.correlation_id, seconds, body, key))

    async def _stored(self, visit: Visit, work: Callable[[datetime], T]) -> T:
        """Do something with the store at its turn.

        Args:
            visit: the request.
            work: what to do; given the time then, for a lease begins when it is written.
        """
        async with self.gates.turn(visit.tenant):
            return await self.threads.call(lambda: work(datetime.now(UTC)))


def _removal(vm: str, uuid: str | None) -> str:
    """The path of a removal that meets this very VM alone, where its node says which it is."""
    return f"/v1/vms/{vm}" + (f"?uuid={uuid}" if uuid else "")
