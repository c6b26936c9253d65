"""`ppn reconcile`: compare the parts of the pool, and see what was found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppn.cli.exits import Exit
from ppn.cli.output import AsJson
from ppn.text import printable

if TYPE_CHECKING:
    from ppn.fleet.reconciliation.notices import State
    from ppn.fleet.reconciliation.report import Report
    from ppn.fleet.reconciliation.settings import ReconcileSettings
    from ppn.fleet.reconciliation.store import Store

reconcile_app = typer.Typer(
    name="reconcile",
    help="Compare nodes, controllers and tenant stores; reports and alerts of what differs.",
    no_args_is_help=True,
)

SettingsFile = Annotated[
    Path,
    typer.Option(
        "--settings", envvar="PPN_RECONCILE", help="The settings; by default this node's."
    ),
]
NODE = Path("/etc/ppn/reconcile.json")


@reconcile_app.command()
def run(
    settings: SettingsFile = NODE,
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Do nothing when this day has had its run (UTC).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare everything now, keep a signed report, and raise an alert for what differs.

    What differs is looked at a second time after a while, for a VM may have been on its way. A
    source that does not answer is said to be not judged; nothing is called missing for it.

    Exit codes: 0 all agrees; 1 no controller answers, or the report cannot be kept; 3 another run
    is going on; 7 something differs, or was not judged.

    Example: ppn reconcile run
    """
    from ppn.fleet.reconciliation import app
    from ppn.fleet.reconciliation.store import read_report
    from ppn.log import configure_log

    configure_log()
    found, store = _opened(settings)
    made = app.run(found, store, if_due=if_due)
    if made is None:
        typer.echo("{}" if as_json else "this day has had its run already")
        return
    report = read_report(made.path, store.public())
    _print(report, made.name, as_json)
    # A timer's run that found something has done its work; who is to know is told by the alerts.
    if not report.is_clean and not if_due:
        sys.exit(Exit.FINDINGS)


@reconcile_app.command("list")
def list_reports(settings: SettingsFile = NODE, as_json: AsJson = False) -> None:
    """The reports that are kept, the newest last; of one that cannot be trusted, why.

    Example: ppn reconcile list
    """
    from ppn.fleet.reconciliation.report import ReportDamaged
    from ppn.fleet.reconciliation.store import read_report

    _, store = _opened(settings)
    rows: list[tuple[object, ...]] = []
    for kept in store.kept():
        try:
            report = read_report(kept.path, store.public())
        except ReportDamaged as error:
            rows.append((kept.name, error.code, None, None, None))
            continue
        figures = (len(report.findings), len(report.not_judged), report.compared.vms)
        rows.append((kept.name, "sound", *figures))
    columns = ("report", "state", "findings", "not_judged", "vms")
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        return
    _table(columns, rows)


@reconcile_app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[REPORT]", help="Its name; the newest without one.")
    ] = None,
    settings: SettingsFile = NODE,
    as_json: AsJson = False,
) -> None:
    """One report: every finding with what to do about it.

    Exit codes: 0 all agreed; 1 the report cannot be trusted; 3 there is none; 7 something differed.

    Example: ppn reconcile show
    """
    from ppn.fleet.reconciliation.store import read_report

    _, store = _opened(settings)
    kept = store.find(name)
    report = read_report(kept.path, store.public())
    _print(report, kept.name, as_json)
    if not report.is_clean:
        sys.exit(Exit.FINDINGS)


@reconcile_app.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="A report's file; all reports of this node without one.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The public key it was signed with; this node's without it.")
    ] = None,
    settings: SettingsFile = NODE,
    as_json: AsJson = False,
) -> None:
    """Verify a report's signature, offline; or all reports, and that none between them is missing.

    Exit codes: 0 sound; 1 changed, missing, or signed by another key.

    Example: ppn reconcile verify 20261121T031502.123456Z.json --key report.key.pub
    """
    from ppn.fleet.reconciliation.store import read_report
    from ppn.pool.keys import fingerprint, load_public

    trusted = load_public(key) if key is not None else None
    misdated: list[str] = []
    if file is not None and trusted is not None:
        read_report(file, trusted)
        count = 1
    else:
        _, store = _opened(settings)
        trusted = trusted or store.public()
        if file is not None:
            read_report(file, trusted)
        found = () if file is not None else store.verify(trusted)
        count = 1 if file is not None else len(found)
        misdated = [one.name for one, after in pairwise(found) if one.made > after.made]
    if as_json:
        fields = {"ok": True, "reports": count, "key": fingerprint(trusted)}
        typer.echo(json.dumps({**fields, "misdated": misdated}))
        return
    for name in misdated:
        typer.echo(f"{name} is dated later than the report after it: the clock was wrong then")
    typer.echo(f"{count} reports are sound, signed with key {fingerprint(trusted)}")


@reconcile_app.command()
def alerts(settings: SettingsFile = NODE, as_json: AsJson = False) -> None:
    """The alerts that stand, and what sinks have not taken yet.

    Exit codes: 0 none stands; 7 some do.

    Example: ppn reconcile alerts
    """
    _, store = _opened(settings)
    state = store.read_state()
    _print_alerts(state, as_json)
    if state.active:
        sys.exit(Exit.FINDINGS)


@reconcile_app.command()
def watch(settings: SettingsFile = NODE, as_json: AsJson = False) -> None:
    """Pass on what agents and controllers have raised since the last time; a timer's work.

    Each alert goes once to each sink, and once more when it is over. What a sink does not take is
    kept for it and tried again.

    Example: ppn reconcile watch
    """
    from ppn.fleet.reconciliation import app
    from ppn.log import configure_log

    configure_log()
    found, store = _opened(settings)
    state = app.watch(found, store)
    if as_json or sys.stdout.isatty():
        _print_alerts(state, as_json)


def _opened(path: Path) -> tuple[ReconcileSettings, Store]:
    from ppn.fleet.reconciliation.settings import read_settings
    from ppn.fleet.reconciliation.store import Store

    settings = read_settings(path)
    _become_owner(settings.state)
    return settings, Store(settings.state)


def _become_owner(folder: Path) -> None:
    """Do as the service's user what root asks for: no file there may become root's own."""
    if os.geteuid() != 0 or not folder.exists():
        return
    found = folder.stat()
    if found.st_uid != 0:
        os.setgroups([])
        os.setgid(found.st_gid)
        os.setuid(found.st_uid)


def _print(report: Report, name: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"name": name, **report.model_dump(mode="json")}))
        return
    for one in report.findings:
        where = f" on {one.node}" if one.node else ""
        typer.echo(printable(f"{one.code}: {one.subject}{where}: {one.message}"))
        typer.echo(printable(f"    next: {one.hint}"))
    for gap in report.not_judged:
        typer.echo(printable(f"not judged: {gap.kind} {gap.name}: {gap.reason}"))
    compared = report.compared
    typer.echo(
        f"{name}: {len(report.findings)} findings, {len(report.not_judged)} sources not judged;"
        f" {compared.vms} VMs on {len(compared.nodes)} nodes,"
        f" {compared.allocations} on record with {len(compared.tenant_proxies)} tenant proxies"
    )


def _print_alerts(state: State, as_json: bool) -> None:
    if as_json:
        typer.echo(state.model_dump_json())
        return
    rows = [(one.code, one.subject, one.node or "-", one.since[:19]) for one in state.active]
    _table(("class", "subject", "node", "since"), rows)
    for name, owed in state.sinks.items():
        if owed.pending:
            typer.echo(f"sink {name} is owed {len(owed.pending)} notices: {owed.error}")


def _table(columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("-" if cell is None else printable(str(cell)) for cell in row))
    wide = None if sys.stdout.isatty() else 160
    Console(markup=False, highlight=False, width=wide).print(table)
