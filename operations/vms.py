"""Operations on virtual machines."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.host_state import PROGRAM, HypervisorState
from facts.shared import shared_fact
from operations.failure import unreadable
from ppn.host.model import NodeState, VmView
from ppn.host.policy import plan
from ppn.host.repin import repinnings
from ppn.host.spec import VmSpec
from ppn.pool.ledger import Change, Grant


def differing(specs: tuple[VmSpec, ...], node: NodeState | None) -> tuple[VmSpec, ...]:
    """The VMs that are not as declared, those that give room first."""
    found = [spec for spec in specs if node is None or plan(spec, node.vm(spec.name))]
    return tuple(sorted(found, key=lambda spec: spec.state == "running"))


def unenforced(changes: Mapping[str, Change], node: NodeState) -> tuple[str, ...]:
    """Running VMs whose weight, memory or CPUs are not what they shall be.

    Args:
        changes: per VM what the ledger says of it.
        node: the node as it is.
    """
    enforced = node.cpu_weight.enforced
    astray = {repinning.vm for repinning in repinnings(node)}
    return tuple(
        vm.name
        for vm in node.vms
        if vm.name in astray or is_unenforced(changes.get(vm.name), vm, enforced)
    )


def is_unenforced(change: Change | None, vm: VmView, weights_take_effect: bool) -> bool:
    """Whether a running VM lacks what its grant gives it and the node can give."""
    if not isinstance(change, Grant) or vm.state != "running":
        return False
    outweighed = weights_take_effect and vm.weight.actual != change.weight
    current = vm.memory.current_mib
    return outweighed or (current is not None and current < change.minimum_mib)


@operation()
def declared(
    vms: tuple[VmSpec, ...], changes: tuple[Change, ...]
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare VMs: present, running, stopped or absent, each with its disks, weight and minimum.

    Weights and minimums take effect only through the ledger, which an earlier step installs; here
    they tell whether a running VM must be brought in line with it. VMs of the node that are not
    declared are left alone.

    + vms: the VMs as they shall be.
    + changes: what the ledger says of each.

    **Example:**

    .. code:: python

        vms.declared(
            name="VMs",
            vms=(VmSpec(name="web", image="debian-13", vcpus=2, memory_mib=1024, disk_gib=8),),
            changes=(Grant("web", weight=300, minimum_mib=512),),
        )
    """
    hypervisor = shared_fact(HypervisorState)
    if hypervisor is None:
        yield unreadable("the VMs of this node")
        return
    node = hypervisor.node
    found = differing(vms, node)
    for spec in found:
        yield StringCommand(PROGRAM, "host apply", _stdin=spec.model_dump_json())
    named = {change.vm: change for change in changes}
    late = set(unenforced(named, node)) - {spec.name for spec in found} if node else set()
    if late:
        yield StringCommand(PROGRAM, "host enforce")
    if not found and not late:
        host.noop(f"{len(vms)} VMs are as declared")
