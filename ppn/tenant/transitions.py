"""What becomes of an allocation at each step: pure rules over what the store has.

A VM is made, changed and removed by requests that may end without saying what became of them.
Whatever is open stays counted, until a request that knows, or the sweeper, says how it ended.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ppn.errors import Refusal
from ppn.tenant.model import Allocation, Amount


def join(
    there: Allocation, wanted: Amount, lease: timedelta, now: datetime, name: str
) -> Allocation:
    """An order for a VM that is allocated already: one more request is at it, nothing is added.

    Args:
        there: the allocation.
        wanted: what the order asks for.
        lease: how long the request may take.
        now: the time.
        name: of the operation, when this begins one.

    Raises:
        Refusal: `vm_busy` while it is removed; `order_differs` when it is made with other figures,
            or is smaller now: should it have vanished, the order would make more than is counted.
    """
    if there.state == "removing":
        raise busy(there.vm, "it is being removed")
    same = there.amount == wanted if there.state == "reserved" else wanted.fits(there.held)
    if not same:
        raise Refusal(
            f"vm {there.vm} was ordered with other figures under this idempotency key",
            code="order_differs",
            constraint="idempotency key",
            hint="use another key for another VM",
        )
    # A change that is under way keeps its name; a reservation that a sweeper looks at does not.
    name = name if there.state == "reserved" else there.operation
    until = _until(there, lease, now)
    return replace(there, holders=there.holders + 1, until=until, operation=name)


def settle(there: Allocation, now: datetime) -> Allocation:
    """A VM that is known to be made; one request less is at it."""
    settled = replace(there, holders=max(there.holders - 1, 0))
    if there.state != "reserved":
        return settled if there.state == "settled" else there
    return replace(settled, state="settled", since=now)


def release(there: Allocation) -> Allocation | None:
    """A request that surely made nothing; None when nobody else may have made it."""
    if there.state == "removing":
        return there
    left = replace(there, holders=max(there.holders - 1, 0))
    return left if left.holders > 0 or there.state == "settled" else None


def begin_change(
    there: Allocation, to: Amount, lease: timedelta, now: datetime, name: str
) -> Allocation:
    """A change of a VM's figures that is about to be asked for.

    Args:
        there: the allocation.
        to: what the VM takes after it.
        lease: how long the request may take.
        now: the time.
        name: of the operation.

    Raises:
        Refusal: `vm_busy`: it is being made, changed or removed.
    """
    if there.state != "settled":
        raise busy(there.vm, f"it is {'made' if there.state == 'reserved' else 'removed'}")
    if there.pending is not None:
        raise busy(there.vm, "another change of it is not over")
    return replace(there, pending=to, since=now, until=_until(there, lease, now), operation=name)


def end_change(there: Allocation, operation: str, amount: Amount, now: datetime) -> Allocation:
    """A VM of which it is known what it takes now; whatever else began since is left alone.

    A request that took longer than its lease knows better than the sweeper, which looked before.
    """
    if there.operation != operation or there.state != "settled":
        return there
    return replace(there, amount=amount, pending=None, since=now)


def begin_removal(there: Allocation, lease: timedelta, now: datetime, name: str) -> Allocation:
    """A removal that is about to be asked for; joins one that is under way.

    Args:
        there: the allocation.
        lease: how long the request may take.
        now: the time.
        name: of the operation, when this begins one.

    Raises:
        Refusal: `vm_busy`: a request may be making or changing it.
    """
    if there.state == "removing":
        return replace(there, holders=there.holders + 1, until=_until(there, lease, now))
    if there.state == "reserved":
        raise busy(there.vm, "it is not known yet to be made")
    if there.is_busy(now) or (there.pending and there.has_lease(now)):
        raise busy(there.vm, "it is being made or changed")
    return replace(there, state="removing", since=now, until=now + lease, holders=1, operation=name)


def end_removal(
    there: Allocation, operation: str, now: datetime, *, gone: bool
) -> Allocation | None:
    """A removal that ended: with nothing left, or surely without an effect.

    Args:
        there: the allocation.
        operation: the removal; another one is left alone.
        now: the time.
        gone: whether nothing of the VM is left.

    Returns:
        What is left of the allocation; None for nothing.
    """
    if there.operation != operation or there.state != "removing":
        return there
    if gone:
        return None
    left = replace(there, holders=max(there.holders - 1, 0))
    if left.holders > 0:
        return left
    # A change that was open before is open again, and for the sweeper to find out.
    return replace(left, state="settled", since=now, until=now)


def busy(vm: str, why: str) -> Refusal:
    """The refusal of what must wait for something else on the same VM."""
    return Refusal(
        f"vm {vm} is busy: {why}",
        code="vm_busy",
        constraint="one operation on a VM at a time",
        hint="ask again once that is over",
    )


def _until(there: Allocation, lease: timedelta, now: datetime) -> datetime:
    """When the requests at it have ended, with one more from now on."""
    own = now + lease
    return max(there.until, own) if there.until and there.has_lease(now) else own
