"""The part of the tenant store that says what every VM takes of its tenant's ceiling."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, insert

from ppn.errors import Refusal
from ppn.tenant import policy, rows, transitions
from ppn.tenant.customers import lock, read
from ppn.tenant.database import transaction
from ppn.tenant.model import Allocation, Amount
from ppn.tenant.schema import allocations
from ppn.tenant.tokens import new_id


class Allocations:
    """What VMs take, from before they are made until nothing of them is left.

    Args:
        engine: of the store's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reserve(
        self, tenant: str, vm: str, amount: Amount, *, lease_seconds: float, now: datetime
    ) -> Allocation:
        """Take what a VM needs from its tenant's ceiling before it is asked for (TEN-08, TEN-09).

        The request must have ended, whatever comes of it, before the lease does. It ends with
        `settle` or `release`; when it cannot know what became of the VM, with neither.

        Args:
            tenant: whose VM.
            vm: its id.
            amount: what it takes.
            lease_seconds: how long the request may take.
            now: the time.

        Returns:
            The allocation; its state is `settled` when the VM was made before.

        Raises:
            Refusal: `quota_exceeded`, `amount_invalid`, `vm_id_invalid`, `tenant_unknown`,
                `vm_busy`, `order_differs`, `vm_unknown` for another tenant's.
        """
        policy.check_wanted(amount)
        policy.check_vm_id(vm)
        lease = timedelta(seconds=lease_seconds)
        with transaction(self._engine) as connection:
            lock(connection, tenant)
            if found := rows.read_allocations(connection, vm=vm):
                if found[0].tenant != tenant:
                    raise vm_unknown(vm)
                joined = transitions.join(found[0], amount, lease, now, new_id())
                rows.write_allocation(connection, joined)
                return joined
            known = read(connection, tenant)
            policy.admit(known.ceiling, known.used, amount)
            made = Allocation(vm, tenant, amount, "reserved", now, None, now + lease, 1, new_id())
            connection.execute(insert(allocations).values(rows.allocation_values(made)))
            return made

    def settle(self, vm: str, *, now: datetime) -> Allocation:
        """Say that a VM is made.

        Raises:
            Refusal: `allocation_gone`: the request took longer than its lease, and the sweeper
                found that there was no such VM; it must be removed again.
        """
        left = self._step(vm, lambda there: transitions.settle(there, now))
        if left is None:
            raise Refusal(
                f"vm {vm} was made after its reservation had ended",
                code="allocation_gone",
                constraint="reservation of the VM",
                hint="remove the VM, then order it again",
            )
        return left

    def release(self, vm: str) -> None:
        """Say that a request surely made nothing: what it took is free, unless others are at it."""
        self._step(vm, transitions.release)

    def begin_change(
        self, vm: str, to: Amount, *, lease_seconds: float, now: datetime
    ) -> Allocation:
        """Take what a change of a VM needs before it is asked for; ends with `end_change`.

        Args:
            vm: its id.
            to: what it takes after the change.
            lease_seconds: how long the request may take.
            now: the time.

        Raises:
            Refusal: `quota_exceeded`, `amount_invalid`, `vm_busy`, `vm_unknown`.
        """
        policy.check_wanted(to)
        lease = timedelta(seconds=lease_seconds)
        with transaction(self._engine) as connection:
            there = _found(_locked(connection, vm), vm)
            changed = transitions.begin_change(there, to, lease, now, new_id())
            known = read(connection, there.tenant)
            policy.admit(known.ceiling, known.used, changed.held - there.held)
            rows.write_allocation(connection, changed)
            return changed

    def end_change(self, begun: Allocation, amount: Amount, *, now: datetime) -> None:
        """Say what a VM takes now: `begun.pending`, or `begun.amount` when nothing was changed.

        Args:
            begun: as `begin_change` returned it.
            amount: what the VM takes.
            now: the time.
        """
        self._step(
            begun.vm, lambda there: transitions.end_change(there, begun.operation, amount, now)
        )

    def begin_removal(self, vm: str, *, lease_seconds: float, now: datetime) -> Allocation:
        """Say that a VM is about to be removed; it is counted until `end_removal` says it is gone.

        Args:
            vm: its id.
            lease_seconds: how long the request may take.
            now: the time.

        Raises:
            Refusal: `vm_busy`, `vm_unknown`.
        """
        lease = timedelta(seconds=lease_seconds)
        with transaction(self._engine) as connection:
            there = _found(_locked(connection, vm), vm)
            begun = transitions.begin_removal(there, lease, now, new_id())
            rows.write_allocation(connection, begun)
            return begun

    def end_removal(self, begun: Allocation, *, gone: bool, now: datetime) -> None:
        """Say that nothing of a VM is left, or that its removal surely had no effect.

        Args:
            begun: as `begin_removal` returned it.
            gone: whether nothing is left.
            now: the time.
        """
        self._step(
            begun.vm,
            lambda there: transitions.end_removal(there, begun.operation, now, gone=gone),
        )

    def is_open(self, begun: Allocation) -> bool:
        """Whether a removal has not ended yet: until then its VM's id is nobody else's.

        Args:
            begun: as `begin_removal` returned it.
        """
        with transaction(self._engine, read_only=True) as connection:
            found = rows.read_allocations(connection, vm=begun.vm)
        return [(one.state, one.operation) for one in found] == [("removing", begun.operation)]

    def replace(self, seen: Allocation, left: Allocation | None) -> bool:
        """Put what is known now in an allocation's place, unless anything happened since.

        Args:
            seen: as it was when it was decided.
            left: what is left of it; None for nothing.

        Returns:
            Whether nothing had happened.
        """
        same = False

        def unless_changed(there: Allocation) -> Allocation | None:
            nonlocal same
            same = there == seen
            return left if same else there

        self._step(seen.vm, unless_changed)
        return same

    def allocation(self, tenant: str | None, vm: str) -> Allocation:
        """What a VM takes: the guard of every request about one (TEN-05).

        Args:
            tenant: who asks; None for an operator, who may ask about every VM.
            vm: its id.

        Raises:
            Refusal: `vm_unknown`, the same for foreign, unknown and removed ones.
        """
        with transaction(self._engine, read_only=True) as connection:
            found = rows.read_allocations(connection, vm=vm, tenant=tenant)
        if not found:
            raise vm_unknown(vm)
        return found[0]

    def allocations(self, tenant: str | None = None) -> tuple[Allocation, ...]:
        """What every VM takes, by id: all, or a tenant's."""
        with transaction(self._engine, read_only=True) as connection:
            return rows.read_allocations(connection, tenant=tenant)

    def expired(self, now: datetime) -> tuple[Allocation, ...]:
        """What is open although no request is at it any more; for the sweeper."""
        with transaction(self._engine, read_only=True) as connection:
            return rows.read_allocations(connection, ended_by=now)

    def _step(self, vm: str, step: Callable[[Allocation], Allocation | None]) -> Allocation | None:
        """Replace an allocation by what a step makes of it; None when nothing is or was left."""
        with transaction(self._engine) as connection:
            there = _locked(connection, vm)
            left = None if there is None else step(there)
            if there is not None and left is None:
                connection.execute(delete(allocations).where(allocations.c.vm == vm))
            elif left is not None and left != there:
                rows.write_allocation(connection, left)
            return left


def _locked(connection: Connection, vm: str) -> Allocation | None:
    """An allocation that no other transaction can change until this one ends."""
    if not rows.lock_tenant_of(connection, vm):
        return None
    # Read again: what the lock was waited for may have changed it.
    found = rows.read_allocations(connection, vm=vm)
    return found[0] if found else None


def _found(there: Allocation | None, vm: str) -> Allocation:
    if there is None:
        raise vm_unknown(vm)
    return there


def vm_unknown(vm: str) -> Refusal:
    """The one refusal of a VM that is foreign, removed, or never was."""
    return Refusal(
        f"there is no vm {vm}",
        code="vm_unknown",
        constraint="known VM",
        hint="list your VMs",
    )
