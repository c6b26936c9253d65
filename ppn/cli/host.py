"""`ppn host`: this node's VMs, pool and capabilities; run on the node, as root."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.host.paths import Paths

if TYPE_CHECKING:
    from ppn.host.model import NodeState, VmMemory

# Everything else is imported by the command that needs it: a node is asked for its state often.

host_app = typer.Typer(
    name="host",
    help="This node's VMs, pool and capabilities. Run on the node, as root.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@host_app.command()
def state(as_json: AsJson = False) -> None:
    """Everything about this node: VMs, memory and CPU pool, topology, KVM, ledger, images.

    Answers also when libvirt is down; then the VMs' state is `unknown` and `libvirt.ok` false.
    Memory is in MiB. `available_mib` is what could be promised (physical less all minimums),
    `free_mib` what is there now, `startable_mib` the largest VM that may start now.

    Example: ppn host state --json | jq .pool
    """
    from ppn.host.state import read_state

    node = read_state(Paths.from_environment())
    if as_json:
        typer.echo(node.model_dump_json())
    else:
        _show_node(node)


@host_app.command("list")
def list_vms(as_json: AsJson = False) -> None:
    """This node's VMs, one line each.

    Example: ppn host list
    """
    from ppn.host.state import read_state

    node = read_state(Paths.from_environment())
    if as_json:
        _print_json({"vms": [vm.model_dump(mode="json") for vm in node.vms]})
    else:
        _show_vms(node)


@host_app.command()
def apply(as_json: AsJson = False) -> None:
    """Make one VM what its description on standard input says; JSON in, JSON out.

    The description is one JSON object: name, image, vcpus, memory_mib, disk_gib, and if wanted
    owner, state (running, stopped, absent), disks, hostname, ssh_keys, user_data, label,
    cmdline_extra. A VM that is so already is left alone. A refusal changes nothing and ends
    with code 3. A run that was killed converges when repeated.

    Example: echo '{"name":"web","image":"tiny","vcpus":2,"memory_mib":256}' | ppn host apply
    """
    from ppn.host.apply import apply as apply_spec
    from ppn.host.spec import spec_from_json

    outcome = apply_spec(spec_from_json(sys.stdin.read()), Paths.from_environment())
    _print_json(outcome.as_dict())


@host_app.command()
def detach(
    vm: Annotated[str, typer.Argument(metavar="VM", help="The VM's name.")],
    disk: Annotated[str, typer.Argument(metavar="DISK", help="The data disk's name.")],
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove its data too, for good.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a data disk from a VM, also while it runs; prints JSON.

    Without --discard the disk is kept: declaring it again attaches it with its data.

    Example: ppn host detach web data
    """
    from ppn.host.detach import detach as detach_disk

    _print_json(detach_disk(vm, disk, Paths.from_environment(), discard=discard).as_dict())


@host_app.command()
def enforce(as_json: AsJson = False) -> None:
    """Put the ledger's CPU weights and balloon minimums in force for the running VMs, live.

    Puts every vCPU on a CPU of its own again too, where the node can pin.

    Weights that this node cannot enforce are reported with the reason. A balloon above its
    minimum is left where it is. Prints JSON.

    Example: ppn host enforce | jq .actions
    """
    from ppn.host.enforce import enforce as enforce_ledger

    _print_json(enforce_ledger(Paths.from_environment()).as_dict())


@host_app.command()
def balloon(
    vm: Annotated[str, typer.Argument(metavar="VM", help="The VM's name.")],
    mib: Annotated[int, typer.Argument(metavar="MIB", help="Memory it shall have, in MiB.")],
    as_json: AsJson = False,
) -> None:
    """Take memory from a running VM, or give it back, through its balloon.

    Prints the figures before and after. Refused below the VM's minimum and above its memory.

    Example: ppn host balloon web 256
    """
    from ppn.host.enforce import balloon as move_balloon

    done = move_balloon(vm, mib, Paths.from_environment())
    if as_json:
        _print_json(done.as_dict())
        return
    _show_memory("before", done.before.memory)
    _show_memory("after", done.after.memory)
    if not done.reached:
        typer.echo(f"the guest has not followed to {mib} MiB yet", err=True)


@host_app.command("probe-kvm")
def probe_kvm(
    as_json: AsJson = False,
    again: Annotated[
        bool, typer.Option("--again", help="Probe even if this boot has a verdict already.")
    ] = False,
) -> None:
    """Find out whether KVM is usable by running guest code under it; keep the verdict.

    The verdict holds until the node boots again. PPN_PROBE_KERNEL names a kernel to use
    instead of the node's newest in /boot.

    Example: ppn host probe-kvm --json
    """
    from ppn.host.kvm import known_verdict
    from ppn.host.kvm import probe_kvm as probe
    from ppn.host.lock import node_lock
    from ppn.host.state import read_boot_id

    paths = Paths.from_environment()
    with node_lock(paths.lock):
        boot_id = read_boot_id(paths)
        verdict = known_verdict(paths, boot_id)
        probing = again or not verdict.probed
        if probing:
            verdict = probe(paths, boot_id)
    if as_json:
        _print_json({"changed": probing, **verdict.model_dump()})
    else:
        typer.echo(f"KVM {'usable' if verdict.usable else 'not usable'}: {verdict.reason}")


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value))


def _show_memory(when: str, memory: VmMemory) -> None:
    typer.echo(
        f"{when}: {memory.current_mib} MiB of {memory.maximum_mib} MiB"
        f" (minimum {memory.minimum_mib} MiB, unused by the guest"
        f" {'unknown' if memory.unused_mib is None else f'{memory.unused_mib} MiB'})"
    )


def _show_node(node: NodeState) -> None:
    pool, disk = node.pool, node.disk
    lines = [
        f"node     {node.settings.name or '(no name)'}"
        f"{', reserved' if node.settings.reserved else ''}",
        f"libvirt  {'ok' if node.libvirt.ok else node.libvirt.error}",
        f"kvm      {'usable' if node.kvm.usable else 'not usable'}: {node.kvm.reason}",
        f"cpus     {pool.vcpus}, buffer {pool.vcpu_buffer}, in VMs {pool.vcpus_allocated},"
        f" largest socket {node.topology.largest_socket} cores",
        f"weights  {'enforced' if node.cpu_weight.enforced else node.cpu_weight.reason}",
        f"pinning  {'enforced' if node.pinning.enforced else node.pinning.reason}",
        f"memory   {pool.physical_mib} MiB, available {pool.available_mib},"
        f" free {pool.free_mib}, startable {pool.startable_mib}, buffer {pool.reserved_mib}",
        f"disk     {disk.total_mib} MiB, free {disk.free_mib}, promised {disk.promised_mib}",
        f"ledger   {node.ledger.entries} entries" if node.ledger.ok else f"{node.ledger.error}",
        f"images   {', '.join(image.name for image in node.images) or 'none'}",
        *(f"problem  {problem.message} ({problem.code})" for problem in node.problems),
        *(f"stray    {other.kind} {other.name}" for other in node.unmanaged),
    ]
    typer.echo("\n".join(lines))
    _show_vms(node)


def _show_vms(node: NodeState) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("vm", "state", "runs under", "vcpus", "memory MiB", "minimum", "weight", "notes")
    for vm in node.vms:
        weight = vm.weight
        table.add_row(
            vm.name,
            vm.state,
            vm.accelerator or "",
            str(vm.spec.vcpus) if vm.spec is not None else "?",
            f"{vm.memory.current_mib or 0}/{vm.memory.maximum_mib}",
            str(vm.memory.minimum_mib),
            f"{weight.wanted}" + ("" if weight.enforced else f" (not enforced: {weight.reason})"),
            ", ".join(problem.code for problem in vm.problems),
        )
    Console(markup=False, highlight=False).print(table)
