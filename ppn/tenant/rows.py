"""Rows of the tenant store, as the values they stand for; each call is a part of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, select, update

from ppn.tenant.model import LONGEST_LEASE, Allocation, Amount, Tenant, Token
from ppn.tenant.schema import allocations, tenants, tokens

FIGURES = ("memory_mib", "vcpus", "disk_gib")


def lock_tenant(connection: Connection, name: str) -> bool:
    """Keep every other transaction from this tenant until this one ends; False without one.

    On SQLite the whole store is locked since the transaction began.
    """
    query = select(tenants.c.name).where(tenants.c.name == name).with_for_update()
    return connection.execute(query).first() is not None


def lock_tenant_of(connection: Connection, vm: str) -> bool:
    """Keep every other transaction from the tenant of a VM; False for an unknown VM."""
    query = (
        select(tenants.c.name)
        .join(allocations, allocations.c.tenant == tenants.c.name)
        .where(allocations.c.vm == vm)
        .with_for_update(of=tenants)
    )
    return connection.execute(query).first() is not None


def read_tenants(connection: Connection, name: str | None = None) -> tuple[Tenant, ...]:
    """Tenants by name, each with what it uses; all, or one."""
    used = [func.coalesce(func.sum(_held(figure)), 0).label(f"used_{figure}") for figure in FIGURES]
    query = (
        select(tenants, *used, func.count(allocations.c.vm).label("used_vms"))
        .outerjoin(allocations, allocations.c.tenant == tenants.c.name)
        .group_by(tenants.c.name)
        .order_by(tenants.c.name)
    )
    if name is not None:
        query = query.where(tenants.c.name == name)
    return tuple(_tenant(row) for row in connection.execute(query))


def read_allocations(
    connection: Connection,
    *,
    vm: str | None = None,
    tenant: str | None = None,
    ended_by: datetime | None = None,
) -> tuple[Allocation, ...]:
    """Allocations by VM.

    Args:
        connection: of the transaction.
        vm: only this VM's.
        tenant: only this tenant's.
        ended_by: only those with something open at which no request is any more by then.
    """
    query = select(allocations).order_by(allocations.c.vm)
    if vm is not None:
        query = query.where(allocations.c.vm == vm)
    if tenant is not None:
        query = query.where(allocations.c.tenant == tenant)
    if ended_by is not None:
        is_open = (allocations.c.state != "settled") | allocations.c.pending_memory_mib.is_not(None)
        until = allocations.c.until
        has_no_lease = (until <= ended_by) | (until > ended_by + LONGEST_LEASE)
        query = query.where(has_no_lease, is_open)
    return tuple(_allocation(row) for row in connection.execute(query))


def write_allocation(connection: Connection, one: Allocation) -> None:
    """Replace an allocation that is there."""
    connection.execute(
        update(allocations).where(allocations.c.vm == one.vm).values(allocation_values(one))
    )


def allocation_values(one: Allocation) -> dict[str, Any]:
    """An allocation as the columns of its row."""
    values: dict[str, Any] = {
        name: getattr(one, name)
        for name in ("vm", "tenant", "state", "since", "until", "holders", "operation")
    }
    for figure in FIGURES:
        values[figure] = getattr(one.amount, figure)
        values[f"pending_{figure}"] = getattr(one.pending, figure) if one.pending else None
    return values


def read_tokens(
    connection: Connection, *, tenant: str | None = None, token_id: str | None = None
) -> Sequence[tuple[Token, str]]:
    """Tokens with their digests, the oldest first; all, a tenant's, or one."""
    query = select(tokens).order_by(tokens.c.created, tokens.c.id)
    if tenant is not None:
        query = query.where(tokens.c.tenant == tenant)
    if token_id is not None:
        query = query.where(tokens.c.id == token_id)
    return [(_token(row), row.digest) for row in connection.execute(query)]


def _held(figure: str) -> ColumnElement[int]:
    """What is counted of an allocation: the larger of what it takes and what it will take."""
    now, pending = allocations.c[figure], allocations.c[f"pending_{figure}"]
    return case((pending > now, pending), else_=now)


def _tenant(row: Row[Any]) -> Tenant:
    # PostgreSQL's sums are decimals.
    used = (int(getattr(row, f"used_{figure}")) for figure in (*FIGURES, "vms"))
    return Tenant(
        name=row.name,
        ceiling=Amount(row.memory_mib, row.vcpus, row.disk_gib, row.vms),
        used=Amount(*used),
        created=row.created,
    )


def _allocation(row: Row[Any]) -> Allocation:
    pending = None
    if row.pending_memory_mib is not None:
        pending = Amount(row.pending_memory_mib, row.pending_vcpus, row.pending_disk_gib, 1)
    return Allocation(
        vm=row.vm,
        tenant=row.tenant,
        amount=Amount(row.memory_mib, row.vcpus, row.disk_gib, 1),
        state=row.state,
        since=row.since,
        pending=pending,
        until=row.until,
        holders=row.holders,
        operation=row.operation,
    )


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        tenant=row.tenant,
        scope="operator" if row.tenant is None else "tenant",
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )
