"""`ppn vm end-move`: ends a move that only a person can end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.cli.completion import node_names
from ppn.cli.exits import Exit
from ppn.cli.move import how, to_its_end
from ppn.cli.output import AsJson, print_json
from ppn.cli.target import Target, asks_controller
from ppn.cli.vm_id import Id
from ppn.errors import PpnError

if TYPE_CHECKING:
    from ppn.wire.fleet import EndOrder, LostMove, MoveReport, PartFound

# How a move is meant to end that somebody ends this way.
MEANT = frozenset({"move_reclaimed", "move_discarded"})
FOUND = {
    "gone": "has nothing of it",
    "here": "has a VM of this id that is its own, and not by this move",
    "left": "is not in the inventory any more: it counts as having nothing",
    "moved": "keeps all of it, gave it up, and starts it by itself no more",
    "receiving": "keeps room for it, and has nothing of it that is whole",
    "silent": "does not say",
    "verifying": "keeps room for it, and has nothing of it that is whole",
    "verified": "keeps all of it, as it was sent, and starts it by itself never",
}


@asks_controller
def end_move(
    target: Target,
    vm: Id,
    keep: Annotated[
        str | None,
        typer.Option(metavar="NODE", help="Who has the VM from now on.", autocompletion=node_names),
    ] = None,
    gone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE",
            help="Who has it no more, you say; what is left of it there is removed for good.",
            autocompletion=node_names,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End a move that is lost: one that ended with `move_lost`, which no node can decide.

    Without options nothing is changed: it is shown what each of the two nodes has of the VM, and
    what can be said of it; the exit code is then 7 if the move is lost.

    With options each node of the move is named once, by --keep or by --gone. --keep A --gone B has
    the VM run on A from what A keeps. --gone A --gone B gives it up: what is kept is removed, with
    its data. You vouch for what no node can know: that who removed the VM meant it, or did not.

    Refused, and nothing changed: `move_not_lost`, where it goes on or has ended by itself;
    `nodes_silent`, where a node does not say what it has (one that is gone for good leaves the
    inventory first); `move_end_wrong`, where other nodes are named; `move_end_unsafe`, where a node
    that is named gone has a VM of this id, a process or a file of it, or the one to keep it has
    nothing. So the VM never runs on both. The controller logs who said what, as `move ended by an
    operator`.

    Example: ppn vm end-move vm-odh2cxdxox2xydov --keep worker-1 --gone laptop
    """
    from ppn.wire.fleet import LostMove, MoveReport

    if not gone:
        if keep is not None:
            raise typer.BadParameter("say of the other node too: --gone NODE")
        answer = target.ask("GET", f"/vms/{vm}/move/end")
        _show(LostMove.model_validate(answer, strict=False), as_json)
        return
    body: dict[str, Any] = {"keep": keep, "gone": gone}
    began = target.ask("POST", f"/vms/{vm}/move/end", body=body)
    ended = to_its_end(target, MoveReport.model_validate(began, strict=False), as_json)
    if as_json:
        print_json(ended.model_dump(mode="json"))
    _tell(ended, keep, as_json)


def _show(found: LostMove, as_json: bool) -> None:
    """Say what each node has, and what may be said of it.

    Raises:
        typer.Exit: the move is lost.
    """
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        for role, part in (("from", found.source), ("to", found.destination)):
            typer.echo(f"{role:>4} {part.node}: {_part(part)}")
        if not found.ends:
            silent = "silent" in (found.source.stage, found.destination.stage)
            typer.echo(
                "nothing can be said before both are heard, or one leaves the inventory"
                if silent
                else "the move is not lost: nobody need say what becomes of it"
            )
        for order in found.ends:
            typer.echo(f"  {_words(found.id, order)}")
    if found.ends:
        raise typer.Exit(Exit.FINDINGS)


def _part(part: PartFound) -> str:
    text = FOUND.get(part.stage, part.stage)
    return f"{text} ({part.vm.state}, UUID {part.vm.uuid})" if part.vm is not None else text


def _words(vm: str, order: EndOrder) -> str:
    """What is typed to end it so, and what that does."""
    words = [*(["--keep", order.keep] if order.keep else [])]
    for node in order.gone:
        words += ["--gone", node]
    effect = (
        f"{order.keep} has it" if order.keep else "what is kept of it is removed, with its data"
    )
    return f"ppn vm end-move {vm} {' '.join(words)}    ({effect})"


def _tell(ended: MoveReport, keep: str | None, as_json: bool) -> None:
    """Say where the VM is now.

    Raises:
        PpnError: it does not run where it should, or the move is lost still.
    """
    from ppn.wire.problems import error_of

    problem = ended.problem
    if problem is not None and problem.code not in MEANT:
        raise error_of(problem)
    if keep is not None and keep != (ended.node if ended.outcome == "done" else ended.source):
        raise PpnError(
            f"vm {ended.id} is not on {keep}",
            code="move_failed",
            hint=f"see the log of the controller for move {ended.move}",
        )
    if not as_json:
        where = f"is on {keep} now: {how(ended)}" if keep is not None else "is given up"
        typer.echo(f"{ended.id} {where}")
