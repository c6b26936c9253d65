"""`ppn host`: this node's VMs, pool and capabilities; run on the node, as root."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.cli.output import AsJson, print_json
from ppn.host.paths import Paths

if TYPE_CHECKING:
    from ppn.host.model import NodeState, VmMemory, VmView

# Everything else is imported by the command that needs it: a node is asked for its state often.

host_app = typer.Typer(
    name="host",
    help="This node's VMs, pool and capabilities. Run on the node, as root.",
    no_args_is_help=True,
)


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
        print_json({"vms": [vm.model_dump(mode="json") for vm in node.vms]})
    else:
        _show_vms(node)


@host_app.command()
def apply(as_json: AsJson = False) -> None:
    """Make one VM what its description on standard input says; JSON in, JSON out.

    The description is one JSON object: name, image, vcpus, memory_mib, disk_gib, and if wanted
    owner, state (running, stopped, absent), disks, hostname, ssh_keys, user_data, label,
    cmdline_extra, address, ports. A VM that is so already is left alone. A refusal changes
    nothing and ends with code 3. A run that was killed converges when repeated.

    Example: echo '{"name":"web","image":"tiny","vcpus":2,"memory_mib":256}' | ppn host apply
    """
    from ppn.host.spec import spec_from_json

    paths = Paths.from_environment()
    spec = spec_from_json(sys.stdin.read())
    done = _by_agent(paths, "apply", vm=spec)
    if done is None:
        from ppn.host.apply import apply as apply_spec

        done = apply_spec(spec, paths).as_dict()
    print_json(done)


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
    paths = Paths.from_environment()
    done = _by_agent(paths, "detach", vm=vm, disk=disk, discard=discard)
    if done is None:
        from ppn.host.agent.report import changed
        from ppn.host.detach import detach as detach_disk

        done = changed(detach_disk(vm, disk, paths, discard=discard))
    print_json(done)


@host_app.command()
def enforce(as_json: AsJson = False) -> None:
    """Put the ledger's CPU weights and balloon minimums in force for the running VMs, live.

    Puts every vCPU on a CPU of its own again too, where the node can pin.

    Weights that this node cannot enforce are reported with the reason. A balloon above its
    minimum is left where it is. Prints JSON.

    Example: ppn host enforce | jq .actions
    """
    paths = Paths.from_environment()
    done = _by_agent(paths, "enforce")
    if done is None:
        from ppn.host.enforce import enforce as enforce_ledger

        done = enforce_ledger(paths).as_dict()
    print_json(done)


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
    from ppn.host.model import VmMemory

    paths = Paths.from_environment()
    done = _by_agent(paths, "balloon", vm=vm, mib=mib)
    if done is None:
        from ppn.host.enforce import balloon as move_balloon

        done = move_balloon(vm, mib, paths).as_dict()
    if as_json:
        print_json(done)
        return
    _show_memory("before", VmMemory.model_validate(done["before"]))
    _show_memory("after", VmMemory.model_validate(done["after"]))
    if not done["reached"]:
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
    paths = Paths.from_environment()
    done = _by_agent(paths, "probe_kvm", again=again)
    if done is None:
        from ppn.host.kvm import ensure_verdict
        from ppn.host.lock import node_lock
        from ppn.host.state import read_boot_id

        with node_lock(paths.lock):
            probed, verdict = ensure_verdict(paths, read_boot_id(paths), again=again)
        done = {"changed": probed, **verdict.model_dump()}
    if as_json:
        print_json(done)
    else:
        typer.echo(f"KVM {'usable' if done['usable'] else 'not usable'}: {done['reason']}")


@host_app.command()
def agent() -> None:
    """Run the host agent; ppn-agent.service does.

    It listens on a Unix socket alone, for root and the node proxy. While it runs, the other
    commands here go through it.

    Exit codes: 0 told to stop; 1 another agent runs, or the node or its settings cannot be read;
    5 there are no settings, or no such user as they name.

    Example: ppn host agent
    """
    from ppn.host.agent.app import run
    from ppn.log import configure_log

    configure_log()
    run(Paths.from_environment())


def _by_agent(paths: Paths, operation: str, **fields: Any) -> dict[str, Any] | None:
    """What the host agent answers; None where none runs, and the command must do it itself."""
    if not paths.agent_socket.exists():
        return None
    from ppn.host.agent.client import ask, operation_of

    return ask(paths.agent_socket, operation_of({"operation": operation, **fields}))


@host_app.command()
def network(as_json: AsJson = False) -> None:
    """Make the network of this node's VMs what its settings and the VMs' records say.

    Bridge, address and rules; VMs keep running. systemd runs it at each boot. Prints JSON.

    Example: ppn host network | jq .guests
    """
    from ppn.host.bridge import synchronise

    change = synchronise(Paths.from_environment())
    found = change.network
    print_json(
        {
            "network": found.model_dump(mode="json") if found is not None else None,
            "guests": {name: guest.lease.model_dump() for name, guest in change.guests.items()},
        }
    )


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
        f"network  {_network_line(node)}",
        f"images   {', '.join(image.name for image in node.images) or 'none'}",
        *(f"problem  {problem.message} ({problem.code})" for problem in node.problems),
        *(f"stray    {other.kind} {other.name}" for other in node.unmanaged),
    ]
    typer.echo("\n".join(lines))
    _show_vms(node)


def _network_line(node: NodeState) -> str:
    network = node.network
    if network is None:
        return "none for VMs"
    held = sum(1 for vm in node.vms if vm.lease is not None)
    return (
        f"{network.range}, addresses held {held},"
        f" ports {network.first_port}-{network.last_port} of {network.mesh_address}"
    )


def _place_of(vm: VmView) -> str:
    """A VM's address, and each port of the node with where it leads: `30080>80/tcp`."""
    if vm.lease is None:
        return ""
    ports = (f"{port.host}>{port.guest}/{port.protocol}" for port in vm.lease.ports)
    return " ".join((vm.lease.address, *ports))


def _show_vms(node: NodeState) -> None:
    from rich.console import Console
    from rich.table import Table

    from ppn.host.model import IN_TRANSIT

    columns = ("vm", "state", "runs under", "vcpus", "memory MiB", "minimum", "weight", "network")
    table = Table(*columns, "notes")
    for vm in node.vms:
        weight = vm.weight
        table.add_row(
            vm.name,
            vm.phase if vm.phase in IN_TRANSIT else vm.state,
            vm.accelerator or "",
            str(vm.spec.vcpus) if vm.spec is not None else "?",
            f"{vm.memory.current_mib or 0}/{vm.memory.maximum_mib}",
            str(vm.memory.minimum_mib),
            f"{weight.wanted}" + ("" if weight.enforced else f" (not enforced: {weight.reason})"),
            _place_of(vm),
            ", ".join(problem.code for problem in vm.problems),
        )
    Console(markup=False, highlight=False).print(table)
