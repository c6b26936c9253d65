"""`ppn tenant`: the pool's customers, their ceilings and their tokens; on a tenant proxy's node."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppn.cli import tenant_output as output
from ppn.cli.output import AsJson
from ppn.errors import PpnError, Refusal

if TYPE_CHECKING:
    from ppn.tenant.settings import TenantSettings
    from ppn.tenant.store import Store

tenant_app = typer.Typer(
    name="tenant",
    help="The pool's customers: what each may have, what it has, and its tokens.",
    no_args_is_help=True,
)
token_app = typer.Typer(
    name="token", help="Bearer tokens: shown once, when they are issued.", no_args_is_help=True
)
tenant_app.add_typer(token_app)

SettingsFile = Annotated[
    Path,
    typer.Option(
        "--settings", envvar="PPN_TENANT_SETTINGS", help="The tenant proxy's settings on its node."
    ),
]
SETTINGS = Path("/etc/ppn/tenant.json")
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="Another store than the settings name; no password in it."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant: the owner of its VMs.")]
MemoryMib = Annotated[int | None, typer.Option("--memory-mib", help="Most memory, in MiB.")]
Vcpus = Annotated[int | None, typer.Option("--vcpus", help="Most virtual CPUs.")]
DiskGib = Annotated[int | None, typer.Option("--disk-gib", help="Most disk, in GiB.")]
Vms = Annotated[int | None, typer.Option("--vms", help="Most VMs.")]
Days = Annotated[
    int | None, typer.Option("--days", min=1, max=3650, help="The token ends after so many days.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="Write the token there (mode 0600), instead of printing it."),
]


@tenant_app.command()
def init(
    settings: SettingsFile = SETTINGS, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Make the tenant store, or bring it to this version; the tenant proxy does so by itself.

    Exit codes: 0 it is up to date; 1 it cannot be used, or was made by a newer ppn.

    Example: ppn tenant init
    """
    with _opened(settings, store, upgrade=True):
        typer.echo(json.dumps({"ok": True}) if as_json else "the tenant store is up to date")


@tenant_app.command()
def create(
    name: Name,
    memory_mib: MemoryMib = None,
    vcpus: Vcpus = None,
    disk_gib: DiskGib = None,
    vms: Vms = None,
    default_ceiling: Annotated[
        bool,
        typer.Option(
            "--default-ceiling", help="What is not given is 5 VMs, 8 GiB, 8 vCPUs, 100 GiB."
        ),
    ] = False,
    days: Days = None,
    token_file: TokenFile = None,
    settings: SettingsFile = SETTINGS,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Provision a customer: its ceiling, and its first token, which is shown this once.

    Exit codes: 0 made; 5 the store or the audit log cannot be used; 3 refused.

    Example: ppn tenant create acme --default-ceiling --memory-mib 16384
    """
    from ppn.tenant.local import opened_provisioning
    from ppn.tenant.model import DEFAULT_CEILING

    given = _given(memory_mib, vcpus, disk_gib, vms)
    if len(given) < 4 and not default_ceiling:
        raise Refusal(
            f"no ceiling, no tenant: {name} has none",
            code="ceiling_missing",
            constraint="ceiling of the tenant",
            hint="give --memory-mib, --vcpus, --disk-gib and --vms, or --default-ceiling",
        )
    ceiling = replace(DEFAULT_CEILING, **given)
    with (
        _token_sink(token_file) as keep,
        opened_provisioning(_settings(settings, store)) as provisioning,
    ):
        tenant, issued = provisioning.create(name, ceiling, expires=_expiry(days))
        keep(issued.text)
    if as_json:
        token = output.issued_data(issued, token_file)
        typer.echo(json.dumps({"tenant": output.tenant_data(tenant), "token": token}))
        return
    typer.echo(f"tenant   {tenant.name}")
    typer.echo(f"ceiling  {output.amount_text(tenant.ceiling)}")
    output.print_issued(issued, token_file)


@tenant_app.command("list")
def list_tenants(
    settings: SettingsFile = SETTINGS, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Every tenant: what is used of what it may have.

    Exit codes: 0 shown; 5 the store cannot be used.

    Example: ppn tenant list --json
    """
    with _opened(settings, store) as opened:
        found = opened.tenants()
    if as_json:
        typer.echo(json.dumps({"tenants": [output.tenant_data(tenant) for tenant in found]}))
        return
    rows = [
        (tenant.name, *(f"{used}/{most}" for used, most in tenant.used.pairs(tenant.ceiling)))
        for tenant in found
    ]
    output.table(("tenant", "memory MiB", "vCPUs", "disk GiB", "VMs"), rows)


@tenant_app.command()
def show(
    name: Name, settings: SettingsFile = SETTINGS, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """One tenant: its ceiling, what is used, what each VM takes, and its tokens.

    Exit codes: 0 shown; 5 the store cannot be used; 4 there is no such tenant.

    Example: ppn tenant show acme
    """
    with _opened(settings, store) as opened:
        tenant, tokens = opened.tenant(name), opened.tokens(name)
        taken = opened.allocations(name)
    if as_json:
        data = output.tenant_data(tenant)
        data["vms"] = [output.allocation_data(one) for one in taken]
        data["tokens"] = [output.token_data(token) for token in tokens]
        typer.echo(json.dumps(data))
        return
    typer.echo(f"tenant   {tenant.name}, since {tenant.created:%Y-%m-%d %H:%M} UTC")
    typer.echo(f"ceiling  {output.amount_text(tenant.ceiling)}")
    typer.echo(f"used     {output.amount_text(tenant.used)}")
    output.table(("vm", "state", "takes"), [output.allocation_row(one) for one in taken])
    output.table(output.TOKEN_COLUMNS, [output.token_row(token) for token in tokens])


@tenant_app.command("set")
def set_(
    name: Name,
    memory_mib: MemoryMib = None,
    vcpus: Vcpus = None,
    disk_gib: DiskGib = None,
    vms: Vms = None,
    settings: SettingsFile = SETTINGS,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give a tenant another ceiling; figures that are not given stay.

    A ceiling below what is used takes nothing away: until enough is gone, nothing may grow.

    Exit codes: 0 set; 5 the store or the audit log cannot be used; 2 no figure is given; 3 refused.

    Example: ppn tenant set acme --vms 10
    """
    from ppn.tenant.local import opened_provisioning

    figures = _given(memory_mib, vcpus, disk_gib, vms)
    if not figures:
        raise typer.BadParameter("give one of --memory-mib, --vcpus, --disk-gib and --vms")
    with opened_provisioning(_settings(settings, store)) as provisioning:
        tenant = provisioning.set_ceiling(name, figures)
    if as_json:
        typer.echo(json.dumps(output.tenant_data(tenant)))
        return
    typer.echo(
        f"{name}: {output.amount_text(tenant.ceiling)}; used {output.amount_text(tenant.used)}"
    )


@tenant_app.command()
def remove(
    name: Name, settings: SettingsFile = SETTINGS, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """Forget a tenant and its tokens; refused while it has VMs.

    Exit codes: 0 forgotten; 5 the store or the audit log cannot be used; 3 refused.

    Example: ppn tenant remove acme
    """
    from ppn.tenant.local import opened_provisioning

    with opened_provisioning(_settings(settings, store)) as provisioning:
        provisioning.remove(name)
    removed = json.dumps({"removed": name})
    typer.echo(removed if as_json else f"{name} is forgotten, with its tokens")


@token_app.command()
def issue(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The tenant.")] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="An operator's: it may act on every tenant's VMs.")
    ] = False,
    days: Days = None,
    token_file: TokenFile = None,
    settings: SettingsFile = SETTINGS,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Issue one more token, which is shown this once.

    Exit codes: 0 issued; 5 the store or the audit log cannot be used; 2 not one of NAME and
    --operator; 3 refused.

    Example: ppn tenant token issue acme --days 90 --token-file acme.token
    """
    from ppn.tenant.local import opened_provisioning

    if (name is None) != operator:
        raise typer.BadParameter("give either NAME or --operator")
    with (
        _token_sink(token_file) as keep,
        opened_provisioning(_settings(settings, store)) as provisioning,
    ):
        issued = provisioning.issue(name, expires=_expiry(days))
        keep(issued.text)
    if as_json:
        typer.echo(json.dumps(output.issued_data(issued, token_file)))
        return
    output.print_issued(issued, token_file)


@token_app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, never its text.")],
    settings: SettingsFile = SETTINGS,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """End a token for good, at once on every proxy.

    Exit codes: 0 revoked, or it was before; 5 the store or the audit log cannot be used; 4 there is
    no such token.

    Example: ppn tenant token revoke 380234d5eed1c75b
    """
    from ppn.tenant.local import opened_provisioning

    with opened_provisioning(_settings(settings, store)) as provisioning:
        ended = provisioning.revoke(token)
    if as_json:
        typer.echo(json.dumps(output.token_data(ended)))
        return
    typer.echo(f"token {ended.id} of {ended.tenant or 'the operator'} is revoked")


@token_app.command("list")
def list_tokens(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this tenant's.")
    ] = None,
    settings: SettingsFile = SETTINGS,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tokens, the oldest first: whose, until when, and whether they are in force.

    Exit codes: 0 shown; 5 the store cannot be used.

    Example: ppn tenant token list acme
    """
    with _opened(settings, store) as opened:
        found = opened.tokens(name)
    if as_json:
        typer.echo(json.dumps({"tokens": [output.token_data(token) for token in found]}))
        return
    output.table(output.TOKEN_COLUMNS, [output.token_row(token) for token in found])


def _settings(path: Path, store: str | None) -> TenantSettings:
    from ppn.settings import read_own
    from ppn.tenant.settings import TenantSettings

    found = read_own(path, TenantSettings)
    return found if store is None else found.model_copy(update={"store": store})


def _opened(path: Path, url: str | None, *, upgrade: bool = False) -> AbstractContextManager[Store]:
    """The store, to read it; with a URL of its own, from any machine."""
    from ppn.tenant.local import opened_store
    from ppn.tenant.store import Store

    if url is not None and not path.exists():
        return Store.open(url, upgrade=upgrade)
    return opened_store(_settings(path, url), upgrade=upgrade)


def _given(
    memory_mib: int | None, vcpus: int | None, disk_gib: int | None, vms: int | None
) -> dict[str, int]:
    figures = {"memory_mib": memory_mib, "vcpus": vcpus, "disk_gib": disk_gib, "vms": vms}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _expiry(days: int | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


@contextmanager
def _token_sink(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Where a token goes: made before there is one, so that no token is lost to a bad path."""
    if path is None:
        yield lambda _: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PpnError(
            f"cannot make {path}: {error.strerror}",
            code="token_file_unusable",
            hint="name a file that does not exist, in a folder that does",
        ) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:

        def keep(text: str) -> None:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

        try:
            yield keep
        except BaseException:
            path.unlink()
            raise
