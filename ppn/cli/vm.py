"""`ppn vm`: the pool's VMs, through a fleet controller."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.cli.move import move

if TYPE_CHECKING:
    from ppn.wire.fleet import PlacedVm

vm_app = typer.Typer(
    name="vm",
    help="The pool's VMs: placed by a fleet controller, run by the host agents.",
    no_args_is_help=True,
)

vm_app.command()(move)

Url = Annotated[
    str | None,
    typer.Option(
        "--controller",
        envvar="PPN_CONTROLLER",
        metavar="URL",
        help="A controller, for example http://10.8.0.1:9203; this node's own when not given.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The VM's id.")]


@vm_app.command()
def create(
    image: Annotated[str, typer.Argument(help="A guest image that nodes of the pool have.")],
    owner: Annotated[str, typer.Option(help="Whose VM it is.")] = "operator",
    vcpus: Annotated[int, typer.Option(help="Virtual CPUs.")] = 2,
    memory_mib: Annotated[int, typer.Option(help="Memory in MiB.")] = 1024,
    disk_gib: Annotated[int, typer.Option(help="Root disk in GiB.")] = 1,
    label: Annotated[str, typer.Option(help="A word of the owner's own.")] = "",
    port: Annotated[
        list[int] | None, typer.Option(help="A TCP port of the guest that mesh nodes may reach.")
    ] = None,
    ssh_key: Annotated[
        list[Path] | None, typer.Option(help="A public key file that gets into the guest.")
    ] = None,
    policy: Annotated[str, typer.Option(help="spread, pack or kvm-first.")] = "spread",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same order twice is one VM.")
    ] = None,
    controller: Url = None,
    as_json: AsJson = False,
) -> None:
    """Have a VM made, and wait until it runs.

    The controller chooses the node. When none fits it says of each node which constraint binds.

    Example: ppn vm create debian-13 --vcpus 2 --memory-mib 2048 --port 22 --ssh-key ~/.ssh/id.pub
    """
    order = {
        "image": image,
        "owner": owner,
        "vcpus": vcpus,
        "memory_mib": memory_mib,
        "disk_gib": disk_gib,
        "label": label,
        "policy": policy,
        "ports": [{"guest": number} for number in port or ()],
        "ssh_keys": [path.read_text(encoding="utf-8").strip() for path in ssh_key or ()],
    }
    headers = {"Idempotency-Key": key} if key is not None else {}
    _show(_ask(controller, "POST", "/vms", body=order, headers=headers), as_json)


@vm_app.command("list")
def list_vms(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    controller: Url = None,
    as_json: AsJson = False,
) -> None:
    """The VMs of the pool, one line each.

    Example: ppn vm list --owner acme
    """
    query = {"owner": owner} if owner is not None else {}
    found = _ask(controller, "GET", "/vms", query=query)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _table(found)


@vm_app.command()
def show(vm: Id, controller: Url = None, as_json: AsJson = False) -> None:
    """One VM: where it is, and how.

    Example: ppn vm show vm-odh2cxdxox2xydov
    """
    _show(_ask(controller, "GET", f"/vms/{vm}"), as_json)


@vm_app.command()
def destroy(vm: Id, controller: Url = None, as_json: AsJson = False) -> None:
    """Remove a VM with its disks; done when nothing of it is left.

    Example: ppn vm destroy vm-odh2cxdxox2xydov
    """
    done = _ask(controller, "DELETE", f"/vms/{vm}")
    typer.echo(json.dumps(done) if as_json else f"{vm} is gone from {', '.join(done['nodes'])}")


@vm_app.command()
def stop(vm: Id, controller: Url = None, as_json: AsJson = False) -> None:
    """Stop a VM: by its power button, and by force when it has not obeyed in time.

    Example: ppn vm stop vm-odh2cxdxox2xydov
    """
    _show(_ask(controller, "POST", f"/vms/{vm}/stop"), as_json)


@vm_app.command()
def start(vm: Id, controller: Url = None, as_json: AsJson = False) -> None:
    """Start a VM that was stopped.

    Example: ppn vm start vm-odh2cxdxox2xydov
    """
    _show(_ask(controller, "POST", f"/vms/{vm}/start"), as_json)


def _ask(controller: str | None, method: str, path: str, **given: Any) -> Any:
    # Imported here: reading this group's help must not load an HTTP library.
    from ppn.fleet.client import ask, own_controller

    return ask(controller or own_controller(), method, path, **given)


def _show(found: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    _table([found])
    for port in found["vm"].get("ports", ()):
        typer.echo(f"port {port['guest']}/{port['protocol']}: {found['node']}:{port['host']}")


def _table(found: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ppn.wire.fleet import PlacedVm

    table = Table(box=None, pad_edge=False)
    for name in ("vm", "node", "state", "owner", "size", "address", "label"):
        # An id that is cut off can be given to no other command.
        table.add_column(name, no_wrap=True, overflow="ignore" if name == "vm" else "ellipsis")
    for one in found:
        # The answer to a change says more: what was done.
        known = {key: one[key] for key in PlacedVm.model_fields if key in one}
        placed = PlacedVm.model_validate(known, strict=False)
        table.add_row(*_cells(placed))
    wide = None if sys.stdout.isatty() else 160
    Console(markup=False, highlight=False, width=wide).print(table)


def _cells(placed: PlacedVm) -> tuple[str, ...]:
    vm = placed.vm
    return (
        vm.id,
        placed.node + (" (silent)" if placed.stale else ""),
        vm.state,
        vm.owner,
        f"{vm.vcpus} vCPU, {vm.memory_mib} MiB",
        vm.address or "-",
        vm.label or "-",
    )
