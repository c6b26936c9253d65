"""`ppn debug`: why something is not as it should be, and what to do (CLI-03, CLI-04)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ppn.cli.completion import node_names
from ppn.cli.exits import Exit
from ppn.cli.output import AsJson, print_json, working
from ppn.cli.target import Controller, Target, asks_pool
from ppn.cli.vm_id import Id

if TYPE_CHECKING:
    from ppn.diagnosis.causes import Cause
    from ppn.diagnosis.evidence import Evidence

debug_app = typer.Typer(
    name="debug",
    help="Why something is not as it should be: the cause first, then what shows it.",
    no_args_is_help=True,
)


@debug_app.command()
@asks_pool
def vm(target: Target, vm: Id, as_json: AsJson = False) -> None:
    """Why a VM was not made, does not run, or is where it is.

    First the causes with the next steps; then where it is, the placement decision with each
    node's reason, the timeline with the time of each step, QEMU's arguments and log, the domain's
    XML and the end of the serial console. Works for a VM that could not be made too. Through a
    tenant proxy it shows what the tenant may see.

    Ends with 0 when nothing is wrong, 7 when a cause was found; docs/troubleshooting.md lists them.

    Example: ppn debug vm vm-odh2cxdxox2xydov
    """
    from ppn.cli.gathering import of_vm

    with working(f"looking at {vm}"):
        evidence = of_vm(target, vm)
    _tell([evidence], as_json)


@debug_app.command()
def node(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A hypervisor; without it the node this runs on, as root.",
            autocompletion=node_names,
        ),
    ] = None,
    controller: Controller = None,
    as_json: AsJson = False,
) -> None:
    """Why a node cannot be used, or does not work as it should.

    Looks at its services, certificates, mesh, clock, KVM, disk, ledger, libvirt, versions and
    alerts: through a controller, or, without NAME, on the node itself, whichever of its services
    is down.

    Ends with 0 when nothing is wrong, 7 when a cause was found; warnings alone are 0.

    Example: ppn debug node server
    """
    from ppn.cli.gathering import of_node, of_this_node
    from ppn.cli.target import target_of

    with working(f"looking at {name or 'this node'}"):
        evidence = of_this_node() if name is None else of_node(target_of(controller), name)
    _tell([evidence], as_json)


@debug_app.command()
def mesh(controller: Controller = None, as_json: AsJson = False) -> None:
    """Why nodes do not reach each other: paths, handshakes, firewall, certificates, clocks.

    Looks at this node first, and then, where a controller runs here or is named, at every
    hypervisor through it. A node that does not answer is itself a finding.

    Ends with 0 when nothing is wrong, 7 when a cause was found; warnings alone are 0.

    Example: ppn debug mesh
    """
    from ppn.cli.gathering import of_mesh

    with working("looking at the mesh"):
        found = of_mesh(controller)
    _tell(found, as_json)


def _tell(found: list[Evidence], as_json: bool) -> None:
    """The causes, then what was found out."""
    from ppn.cli import findings
    from ppn.diagnosis.causes import diagnose

    causes: list[Cause] = []
    for evidence in found:
        causes += [cause for cause in diagnose(evidence) if cause not in causes]
    causes.sort(key=lambda cause: cause.grade == "warning")
    if as_json:
        print_json(findings.as_json(causes, found))
    else:
        findings.show_causes(causes)
        for evidence in found:
            findings.show_evidence(evidence)
    if any(cause.grade == "error" for cause in causes):
        raise typer.Exit(Exit.FINDINGS)
