"""`ppn node`: the pool's nodes, as a fleet controller sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ppn.cli.completion import node_names
from ppn.cli.output import AsJson, print_json, print_table
from ppn.cli.target import Target, asks_controller
from ppn.text import printable

node_app = typer.Typer(
    name="node", help="The pool's nodes, as a fleet controller sees them.", no_args_is_help=True
)

NodeName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The node's name.", autocompletion=node_names),
]
COLUMNS = ("node", "heard", "vms", "vCPUs free", "memory free", "disk free", "kvm", "alerts")


@node_app.command("list")
@asks_controller
def list_nodes(target: Target, as_json: AsJson = False) -> None:
    """Every node that was heard since the controller started, with what may still be placed there.

    Example: ppn node list
    """
    found = target.ask("GET", "/nodes")
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, (_cells(one) for one in found))


@node_app.command()
@asks_controller
def show(target: Target, name: NodeName, as_json: AsJson = False) -> None:
    """One node: what it has, what is free, what is not as it should be.

    Example: ppn node show server
    """
    found = target.ask("GET", f"/nodes/{name}")
    if as_json:
        print_json(found)
        return
    print_table(COLUMNS, [_cells(found)])
    if not found["kvm"]:
        typer.echo(f"kvm    {found['kvm_reason']}")
    for alert in found.get("alerts", ()):
        typer.echo(printable(f"alert  {alert['subject']}: {alert['message']} ({alert['code']})"))


def _cells(node: Mapping[str, Any]) -> tuple[str, ...]:
    name = str(node["name"]) + (" (reserved)" if node["reserved"] else "")
    heard = f"{node['age_seconds']:.0f} s ago" + (" (silent)" if node["stale"] else "")
    return (
        name,
        heard,
        str(node["vms"]),
        f"{node['free_vcpus']} of {node['vcpus']}",
        f"{node['free_memory_mib']} of {node['memory_mib']} MiB",
        f"{node['free_disk_mib'] // 1024} GiB",
        "yes" if node["kvm"] else "no",
        str(len(node.get("alerts", ()))),
    )
