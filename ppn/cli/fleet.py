"""`ppn fleet`: the whole pool at a glance, and what is not as it should be."""

from __future__ import annotations

import typer

from ppn.cli.exits import Exit
from ppn.cli.output import AsJson, print_json, print_table
from ppn.cli.target import Target, asks_controller

fleet_app = typer.Typer(
    name="fleet",
    help="The whole pool at a glance, as a fleet controller sees it.",
    no_args_is_help=True,
)


@fleet_app.command()
@asks_controller
def show(target: Target, as_json: AsJson = False) -> None:
    """The sums over all nodes; capacity counts the nodes that are heard alone.

    Example: ppn fleet show
    """
    found = target.ask("GET", "/fleet")
    if as_json:
        print_json(found)
        return
    typer.echo(
        f"controller  {found['controller']}\n"
        f"nodes       {found['live']} of {found['nodes']} are heard\n"
        f"VMs         {found['vms']}\n"
        f"vCPUs       {found['free_vcpus']} of {found['vcpus']} free\n"
        f"memory      {found['free_memory_mib']} of {found['memory_mib']} MiB free\n"
        f"alerts      {found['alerts']}"
    )


@fleet_app.command()
@asks_controller
def alerts(target: Target, as_json: AsJson = False) -> None:
    """What is not as it should be, on the nodes and between them; ends with 7 if there is any.

    Example: ppn fleet alerts --json
    """
    found = [{"node": "", **one} for one in target.ask("GET", "/alerts")]
    for node in target.ask("GET", "/nodes"):
        found += [{"node": node["name"], **one} for one in node.get("alerts", ())]
    if as_json:
        print_json(found)
    elif found:
        columns = ("node", "subject", "code", "message", "next step")
        names = ("node", "subject", "code", "message", "hint")
        print_table(columns, ([str(one.get(name, "")) for name in names] for one in found), whole=3)
    if found:
        raise typer.Exit(Exit.FINDINGS)
