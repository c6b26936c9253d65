"""`ppn vm`: the pool's VMs, through a fleet controller or a tenant proxy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ppn.cli import order_options as options
from ppn.cli.end_move import end_move
from ppn.cli.move import move
from ppn.cli.output import AsJson, print_json, working
from ppn.cli.target import Target, asks_pool
from ppn.cli.vm_id import Id

vm_app = typer.Typer(
    name="vm",
    help="The pool's VMs: placed by a fleet controller, run by the host agents.",
    no_args_is_help=True,
)


@vm_app.command()
@asks_pool
def create(
    target: Target,
    image: options.ImageName,
    owner: options.Owner = None,
    vcpus: options.Vcpus = 2,
    memory_mib: options.MemoryMib = 1024,
    disk_gib: options.DiskGib = 1,
    disk: options.Disks = None,
    label: options.Label = "",
    affinity: options.Affinity = "",
    anti_affinity: options.AntiAffinity = "",
    port: options.Ports = None,
    ssh_key: options.SshKeys = None,
    user_data: options.UserData = None,
    name: options.GuestName = None,
    kvm: options.PreferKvm = True,
    policy: options.Policy = "spread",
    key: options.Key = None,
    as_json: AsJson = False,
) -> None:
    """Have a VM made, and wait until it runs.

    The controller chooses the node. When none fits it says of each node which constraint binds,
    and `ppn debug vm ID` says what to do.

    Example: ppn vm create debian-13 --vcpus 2 --memory-mib 2048 --port 22 --ssh-key ~/.ssh/id.pub
    """
    from ppn.cli import orders

    order: dict[str, Any] = {
        "image": image,
        "vcpus": vcpus,
        "memory_mib": memory_mib,
        "disk_gib": disk_gib,
        "disks": [orders.disk_of(text) for text in disk or ()],
        "label": label,
        "affinity": affinity,
        "anti_affinity": anti_affinity,
        "ports": [orders.port_of(text) for text in port or ()],
        "ssh_keys": [orders.text_of(path).strip() for path in ssh_key or ()],
        "kvm": kvm,
        "policy": policy,
        "name": name,
        "user_data": orders.user_data_of(user_data) if user_data is not None else None,
    }
    _show(orders.send(target, order, owner, key), as_json)


@vm_app.command()
@asks_pool
def batch(
    target: Target,
    file: Annotated[
        typer.FileText, typer.Argument(metavar="FILE", help="JSON; - for standard input.")
    ],
    per_item: Annotated[
        bool, typer.Option(help="Each VM for itself; without it all of them or none.")
    ] = False,
    key: options.Key = None,
    as_json: AsJson = False,
) -> None:
    """Have several VMs made: all of them or none.

    FILE holds one JSON array of orders, each with the fields of `POST /v1/vms` (see
    docs/fleet.md): owner, image, vcpus, memory_mib and so on. With --per-item the answer says of
    each VM what became of it, and the exit code is 7 when one was not made.

    Example: ppn vm batch orders.json --per-item
    """
    from ppn.cli import orders

    found = orders.send_batch(target, file.read(), per_item, key)
    if as_json:
        print_json(found)
    else:
        orders.show_batch(found)
    if any(item.get("problem") for item in found["items"]):
        raise typer.Exit(orders.NOT_ALL)


@vm_app.command("list")
@asks_pool
def list_vms(
    target: Target,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    as_json: AsJson = False,
) -> None:
    """The VMs of the pool, one line each; through a tenant proxy the tenant's own.

    Example: ppn vm list --owner acme
    """
    query = {"owner": owner} if owner is not None else {}
    found = target.ask("GET", "/vms", query=query)
    if as_json:
        print_json(found)
    else:
        _table(found)


@vm_app.command()
@asks_pool
def show(target: Target, vm: Id, as_json: AsJson = False) -> None:
    """One VM: where it is, and how.

    Example: ppn vm show vm-odh2cxdxox2xydov
    """
    _show(target.ask("GET", f"/vms/{vm}"), as_json)


@vm_app.command()
@asks_pool
def destroy(
    target: Target,
    vm: Id,
    uuid: Annotated[
        str | None,
        typer.Option(
            metavar="UUID", help="Only the very VM that has this UUID (`ppn vm show --json`)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove a VM with its disks; done when nothing of it is left.

    An id is used again when its tenant orders anew under the same key. With --uuid a VM that was
    made since stays, and the command ends with 3 (`vm_replaced`); for operators, who see UUIDs.

    Example: ppn vm destroy vm-odh2cxdxox2xydov
    """
    if uuid is not None and target.is_proxy:
        raise typer.BadParameter("--uuid is for a controller: tenants see no UUIDs")
    with working(f"destroying {vm}"):
        query = {"uuid": uuid} if uuid is not None else None
        done = target.ask("DELETE", f"/vms/{vm}", query=query)
    if as_json:
        print_json(done)
    else:
        where = ", ".join(done.get("nodes", ()))
        typer.echo(f"{vm} is gone" + (f" from {where}" if where else ""))


@vm_app.command()
@asks_pool
def stop(target: Target, vm: Id, as_json: AsJson = False) -> None:
    """Stop a VM: by its power button, and by force when it has not obeyed in time.

    Example: ppn vm stop vm-odh2cxdxox2xydov
    """
    with working(f"stopping {vm}"):
        done = target.ask("POST", f"/vms/{vm}/stop")
    _show(done, as_json)


@vm_app.command()
@asks_pool
def start(target: Target, vm: Id, as_json: AsJson = False) -> None:
    """Start a VM that was stopped.

    Example: ppn vm start vm-odh2cxdxox2xydov
    """
    with working(f"starting {vm}"):
        done = target.ask("POST", f"/vms/{vm}/start")
    _show(done, as_json)


vm_app.command()(move)
vm_app.command()(end_move)


@vm_app.command()
@asks_pool
def resize(
    target: Target,
    vm: Id,
    vcpus: Annotated[int | None, typer.Option(min=1, help="Virtual CPUs.")] = None,
    memory_mib: Annotated[int | None, typer.Option(min=64, help="Memory in MiB.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a stopped VM other memory or vCPUs; a figure that is left out stays.

    Example: ppn vm resize vm-odh2cxdxox2xydov --memory-mib 4096
    """
    given = {"vcpus": vcpus, "memory_mib": memory_mib}
    order = {name: value for name, value in given.items() if value is not None}
    if not order:
        raise typer.BadParameter("say --vcpus, --memory-mib or both")
    _show(target.ask("PATCH", f"/vms/{vm}", body=order), as_json)


@vm_app.command()
@asks_pool
def attach(
    target: Target,
    vm: Id,
    disk: Annotated[
        str, typer.Argument(metavar="NAME:GIB", help="The disk's name and its size in GiB.")
    ],
    as_json: AsJson = False,
) -> None:
    """Give a VM one more disk, also while it runs.

    Example: ppn vm attach vm-odh2cxdxox2xydov data:20
    """
    from ppn.cli import orders

    body = orders.disk_of(disk)
    with working(f"attaching {disk}"):
        done = target.ask("POST", f"/vms/{vm}/disks", body=body)
    _show(done, as_json)


@vm_app.command()
@asks_pool
def detach(
    target: Target,
    vm: Id,
    disk: Annotated[str, typer.Argument(metavar="NAME", help="The disk's name.")],
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove its data too, for good.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a data disk from a VM, also while it runs; without --discard its data are kept.

    Example: ppn vm detach vm-odh2cxdxox2xydov data
    """
    query = {"discard": "true" if discard else "false"}
    with working(f"detaching {disk}"):
        done = target.ask("DELETE", f"/vms/{vm}/disks/{disk}", query=query)
    _show(done, as_json)


@vm_app.command()
@asks_pool
def console(
    target: Target,
    vm: Id,
    size: Annotated[
        int, typer.Option("--bytes", min=1, max=1024 * 1024, help="At most so many bytes.")
    ] = 65536,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what the guest writes next.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The end of what a guest wrote to its serial console.

    With --follow it goes on until it is interrupted; with --json one document for each piece.

    Example: ppn vm console vm-odh2cxdxox2xydov --follow
    """
    from ppn.cli import watching

    watching.console(target, vm, size, follow=follow, as_json=as_json)


@vm_app.command()
@asks_pool
def timeline(target: Target, vm: Id, as_json: AsJson = False) -> None:
    """The steps of a VM's last operations, with the time each took.

    Example: ppn vm timeline vm-odh2cxdxox2xydov
    """
    from ppn.cli import watching

    found = target.ask("GET", f"/vms/{vm}/timeline")
    if as_json:
        print_json(found)
    else:
        watching.show_timeline(found["operations"])


def _show(found: Any, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    from ppn.cli import orders

    orders.show(found)


def _table(found: list[Any]) -> None:
    from ppn.cli import orders

    orders.show_vms(found)
