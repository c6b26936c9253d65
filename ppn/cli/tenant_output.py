"""How `ppn tenant` shows tenants, tokens and what VMs take."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from ppn.tenant.model import Allocation, Amount, Tenant, Token
from ppn.tenant.tokens import Issued

TOKEN_COLUMNS = ("token", "of", "issued", "ends", "state")


def print_issued(issued: Issued, token_file: Path | None) -> None:
    """Show a token that was just issued, this once, unless it went into a file."""
    token = issued.token
    typer.echo(f"token    {token.id}, {_end_text(token)}")
    if token_file is None:
        typer.echo(f"secret   {issued.text}")
        typer.echo("It is shown this once: give it to the customer now.", err=True)
    else:
        typer.echo(f"secret   in {token_file}")


def issued_data(issued: Issued, token_file: Path | None) -> dict[str, Any]:
    """A token that was just issued, with its secret unless that went into a file."""
    data = token_data(issued.token)
    return data if token_file is not None else data | {"secret": issued.text}


def token_data(token: Token) -> dict[str, Any]:
    """A token as plain data."""
    times = {name: getattr(token, name) for name in ("created", "expires", "revoked")}
    texts = {name: at.isoformat() if at is not None else None for name, at in times.items()}
    return {"id": token.id, "tenant": token.tenant, "scope": token.scope, **texts}


def token_row(token: Token) -> tuple[str, ...]:
    """A token as a line of a table."""
    state = "in force" if token.holds(datetime.now(UTC)) else "ended"
    return (
        token.id,
        token.tenant or "the operator",
        f"{token.created:%Y-%m-%d}",
        _end_text(token),
        "revoked" if token.revoked else state,
    )


def _end_text(token: Token) -> str:
    return "without an end" if token.expires is None else f"until {token.expires:%Y-%m-%d}"


def tenant_data(tenant: Tenant) -> dict[str, Any]:
    """A tenant as plain data."""
    return {
        "name": tenant.name,
        "created": tenant.created.isoformat(),
        "ceiling": asdict(tenant.ceiling),
        "used": asdict(tenant.used),
        "free": asdict(tenant.free),
    }


def allocation_data(one: Allocation) -> dict[str, Any]:
    """What a VM takes, as plain data."""
    return {"id": one.vm, "state": one.state, "since": one.since.isoformat(), **asdict(one.held)}


def allocation_row(one: Allocation) -> tuple[str, ...]:
    """What a VM takes, as a line of a table."""
    state = one.state if one.pending is None else "changing"
    return (one.vm, state, amount_text(one.held))


def amount_text(amount: Amount) -> str:
    """An amount in words."""
    sizes = f"{amount.memory_mib} MiB, {amount.vcpus} vCPU, {amount.disk_gib} GiB disk"
    return f"{amount.vms} VM, {sizes}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print lines under their columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    wide = None if sys.stdout.isatty() else 160
    Console(markup=False, highlight=False, width=wide).print(table)
