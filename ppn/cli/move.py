"""`ppn vm move`: a VM to another node, with a bar that shows how far it is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.cli.completion import node_names
from ppn.cli.output import AsJson, print_json
from ppn.cli.target import Target, asks_controller
from ppn.cli.vm_id import Id
from ppn.errors import PpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ppn.wire.fleet import MoveReport

POLL_SECONDS = 0.5
# A controller that is started anew is silent for a while; the move goes on.
SILENT_SECONDS = 120.0
CANCELLED = "move_cancelled"
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


@asks_controller
def move(
    target: Target,
    vm: Id,
    node: Annotated[
        str | None,
        typer.Argument(metavar="NODE", help="Where it shall go.", autocompletion=node_names),
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Have it stay where it is; without NODE.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move a VM to another node: it is stopped, copied and started there, with all it is and has.

    What the other node has no room for is refused before the VM is stopped, and a move that fails
    leaves the VM where it was. Interrupted, this command stops watching; the move goes on, and the
    same command again watches it. With --cancel a move is called back; once the VM has been given
    up by its node that is too late, and refused.

    Example: ppn vm move vm-odh2cxdxox2xydov laptop
    """
    if cancel == (node is not None):
        raise typer.BadParameter("say NODE, or --cancel")
    began = _asked(target, "DELETE", vm) if cancel else _asked(target, "POST", vm, {"node": node})
    ended = to_its_end(target, began, as_json)
    if as_json:
        print_json(ended.model_dump(mode="json"))
    if cancel:
        _say_cancelled(ended, as_json)
        return
    if not as_json and ended.outcome == "done":
        typer.echo(f"{vm} is on {ended.node} now: {how(ended)}")
    if ended.outcome == "failed" or ended.problem is not None:
        _complain(ended)


def to_its_end(target: Target, began: MoveReport, as_json: bool) -> MoveReport:
    """Watch a move until it has ended, with bars for people.

    Args:
        target: the controller that drives it.
        began: how far it is.
        as_json: without a word.

    Returns:
        How it ended.
    """
    return _quietly(target, began) if as_json else _watched(target, began)


def _asked(target: Target, method: str, vm: str, body: dict[str, Any] | None = None) -> MoveReport:
    from ppn.wire.fleet import MoveReport

    answer = target.ask(method, f"/vms/{vm}/move", body=body)
    return MoveReport.model_validate(answer, strict=False)


def _reports(target: Target, began: MoveReport) -> Iterator[MoveReport]:
    """How far a move is, again and again, until it has ended."""
    from ppn.fleet.client import ControllerUnreachable

    report, heard = began, time.monotonic()
    while True:
        yield report
        if report.outcome != "going":
            return
        time.sleep(POLL_SECONDS)
        try:
            report, heard = _asked(target, "GET", began.id), time.monotonic()
        except ControllerUnreachable:
            if time.monotonic() - heard >= SILENT_SECONDS:
                raise


def _quietly(target: Target, began: MoveReport) -> MoveReport:
    return list(_reports(target, began))[-1]


def _watched(target: Target, began: MoveReport) -> MoveReport:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:>24}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    report = began
    with Progress(
        *columns, TransferSpeedColumn(), console=console, disable=not sys.stderr.isatty()
    ) as bars:
        tasks: dict[str, Any] = {}
        for report in _reports(target, began):
            total = report.bytes_total or None
            if report.stage not in tasks:
                for task in tasks.values():
                    bars.stop_task(task)
                word = WORDS.get(report.stage, report.stage)
                tasks[report.stage] = bars.add_task(word, total=total)
            bars.update(tasks[report.stage], completed=report.bytes_done, total=total)
    return report


def how(report: MoveReport) -> str:
    """How a VM is where it is now, and where it is reached."""
    if report.vm is None:
        return "see ppn vm show"
    ports = (f"port {port.guest} at {port.host}" for port in report.vm.ports)
    return ", ".join([report.vm.state, *([report.vm.address] if report.vm.address else []), *ports])


def _say_cancelled(report: MoveReport, as_json: bool) -> None:
    """Say where a VM stays, or that it was too late.

    Raises:
        PpnError: the move was given up for another reason, or had gone too far.
    """
    from ppn.fleet.moving.policy import committed

    if report.outcome == "done":
        raise committed(report.id, report.node)
    if report.problem is None or report.problem.code != CANCELLED:
        _complain(report)
    if not as_json:
        typer.echo(f"{report.id} stays on {report.source}: {how(report)}")


def _complain(report: MoveReport) -> None:
    """End as a command does that could not do all it was asked for."""
    from ppn.wire.problems import error_of

    if report.problem is not None:
        raise error_of(report.problem)
    raise PpnError(
        f"vm {report.id} was not moved and is on {report.source}",
        code="move_failed",
        hint=f"see the log of the controller for move {report.move}",
    )
