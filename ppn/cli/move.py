"""`ppn vm move`: a VM to another node, with a bar that shows how far it is."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.errors import PpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ppn.wire.fleet import MoveReport

POLL_SECONDS = 0.5
# A controller that is started anew is silent for a while; the move goes on.
SILENT_SECONDS = 120.0
WORDS = {
    "preparing": "room is kept",
    "stopping": "the guest is stopped",
    "copying": "disks are copied",
    "sending": "disks are sent",
    "sent": "disks are sent",
    "verifying": "disks are compared",
    "settling": "the other node takes over",
    "back": "called back",
    "done": "done",
    "failed": "failed",
}


def move(
    vm: Annotated[str, typer.Argument(metavar="ID", help="The VM's id.")],
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node it shall go to.")],
    controller: Annotated[
        str | None,
        typer.Option(
            "--controller",
            envvar="PPN_CONTROLLER",
            metavar="URL",
            help="A controller, for example http://10.8.0.1:9203; this node's own when not given.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
) -> None:
    """Move a VM to another node: it is stopped, copied and started there, with all it is and has.

    What the other node has no room for is refused before the VM is stopped, and a move that fails
    leaves the VM where it was. Interrupted, this command stops watching; the move goes on, and the
    same command again watches it.

    Example: ppn vm move vm-odh2cxdxox2xydov laptop
    """
    from ppn.fleet.client import own_controller

    url = controller or own_controller()
    began = _asked(url, "POST", vm, {"node": node})
    ended = _quietly(url, began) if as_json else _watched(url, began)
    if as_json:
        typer.echo(ended.model_dump_json())
    elif ended.outcome == "done":
        typer.echo(f"{vm} is on {ended.node} now: {_how(ended)}")
    if ended.outcome == "failed" or ended.problem is not None:
        _complain(ended)


def _asked(url: str, method: str, vm: str, body: dict[str, Any] | None = None) -> MoveReport:
    from ppn.fleet.client import ask
    from ppn.wire.fleet import MoveReport

    return MoveReport.model_validate(ask(url, method, f"/vms/{vm}/move", body=body), strict=False)


def _reports(url: str, began: MoveReport) -> Iterator[MoveReport]:
    """How far a move is, again and again, until it has ended."""
    from ppn.fleet.client import ControllerUnreachable

    report, heard = began, time.monotonic()
    while True:
        yield report
        if report.outcome != "going":
            return
        time.sleep(POLL_SECONDS)
        try:
            report, heard = _asked(url, "GET", began.id), time.monotonic()
        except ControllerUnreachable:
            if time.monotonic() - heard >= SILENT_SECONDS:
                raise


def _quietly(url: str, began: MoveReport) -> MoveReport:
    return list(_reports(url, began))[-1]


def _watched(url: str, began: MoveReport) -> MoveReport:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:>24}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    report = began
    with Progress(
        *columns, TransferSpeedColumn(), console=console, disable=not sys.stderr.isatty()
    ) as bars:
        tasks: dict[str, Any] = {}
        for report in _reports(url, began):
            total = report.bytes_total or None
            if report.stage not in tasks:
                for task in tasks.values():
                    bars.stop_task(task)
                word = WORDS.get(report.stage, report.stage)
                tasks[report.stage] = bars.add_task(word, total=total)
            bars.update(tasks[report.stage], completed=report.bytes_done, total=total)
    return report


def _how(report: MoveReport) -> str:
    if report.vm is None:
        return "see ppn vm show"
    ports = (f"port {port.guest} at {port.host}" for port in report.vm.ports)
    return ", ".join([report.vm.state, *([report.vm.address] if report.vm.address else []), *ports])


def _complain(report: MoveReport) -> None:
    """End as a command does that could not do all it was asked for."""
    from ppn.wire.problems import error_of

    if report.problem is not None:
        raise error_of(report.problem)
    raise PpnError(
        f"vm {report.id} was not moved and is on {report.source}",
        code="move_failed",
        hint=f"see the log of the controller for move {json.dumps(report.move)}",
    )
