"""What on the node is not as it should be: a pure comparison of looks (HLT-06)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ppn.host.agent.processes import Process
from ppn.host.model import IN_TRANSIT, NodeState, VmView
from ppn.host.plan import wanted_disks
from ppn.host.policy import is_silent, silent_hint
from ppn.host.spec import VmSpec
from ppn.wire.heartbeat import Alert

VM_HINT = "start it, or destroy it"
# By kind of what nobody declared: the code, what is wrong, and the next step.
STRANGERS = {
    "domain": (
        "domain_unmanaged",
        "domain {name} came another way than through ppn",
        "remove that domain by hand",
    ),
    "folder": (
        "folder_unmanaged",
        "folder {name} among the VMs has no sidecar, so that its disks are no VM's",
        "put the sidecar back, or remove that folder by hand",
    ),
    "disk": (
        "disk_orphaned",
        "the disk {name} among the VMs' is no VM's",
        "move it away, or remove it, if nobody needs it",
    ),
    "file": (
        "file_unmanaged",
        "the file {name} among the VMs' came another way than through ppn",
        "move it away, or remove it, if nobody needs it",
    ),
    "leftover": (
        "leftover_kept",
        "{name} was left among the VMs by a run that was killed",
        "restart ppn-agent, which removes its own leftovers while VMs run on; the rest by hand",
    ),
}


@dataclass(frozen=True)
class Look:
    """The node at one moment.

    Args:
        node: its state.
        busy: VMs that operations were changing at that moment.
        strange: QEMU processes that libvirt has no record of.
        in_flight: VMs that operations were changing, as they shall be.
        stuck: VMs between two nodes that have come no further for an hour.
    """

    node: NodeState
    busy: frozenset[str] = frozenset()
    strange: frozenset[Process] = frozenset()
    in_flight: tuple[VmSpec, ...] = ()
    stuck: frozenset[str] = frozenset()


def alerts(now: Look, before: Look | None, kept: tuple[Alert, ...]) -> tuple[Alert, ...]:
    """Everything that is wrong now, each until it is put right.

    A VM that an operation is changing is not judged. While libvirt is silent nothing can be known
    of the VMs, so what was wrong with them stays said.

    Args:
        now: the node as it is.
        before: the look before; None for the first.
        kept: the alerts so far.
    """
    found = [*_node(now.node), *_strangers(now, before)]
    for vm in now.node.vms:
        if vm.name not in now.busy:
            found += _vm(vm, now)
    subjects = {vm.name for vm in now.node.vms} & now.busy
    if not now.node.libvirt.ok:
        subjects |= {alert.subject for alert in kept if alert.code != "libvirt_down"}
    known = {(alert.code, alert.subject) for alert in found}
    found += [
        alert
        for alert in kept
        if alert.subject in subjects and (alert.code, alert.subject) not in known
    ]
    return tuple(sorted(found, key=lambda alert: (alert.subject, alert.code)))


def _node(node: NodeState) -> Iterator[Alert]:
    if not node.libvirt.ok:
        error = node.libvirt.error
        reason = error.message if error is not None else "no reason given"
        yield Alert(
            code="libvirt_down",
            subject="libvirt",
            message=f"libvirt does not answer: {reason}",
            hint="systemctl status libvirtd.service",
        )
    if not node.ledger.ok and node.ledger.error is not None:
        error = node.ledger.error
        yield Alert(
            code="ledger_unusable", subject="ledger", message=error.message, hint=error.hint
        )
    for problem in node.problems:
        yield Alert(code=problem.code, subject="node", message=problem.message, hint=problem.hint)


def _strangers(now: Look, before: Look | None) -> Iterator[Alert]:
    for other in now.node.unmanaged:
        # A file in a VM's folder is that VM's concern while an operation changes it.
        if other.name.partition("/")[0] not in now.busy:
            code, message, hint = STRANGERS[other.kind]
            name = other.name
            yield Alert(code=code, subject=name, message=message.format(name=name), hint=hint)
    # libvirt's and our own probes run QEMU for a moment; what is there twice stays.
    for process in sorted(now.strange & before.strange) if before is not None else ():
        yield Alert(
            code="qemu_unmanaged",
            subject=f"pid {process.pid}",
            message=f"process {process.pid} runs QEMU and libvirt has no record of it",
            hint="end it, if nobody needs it",
        )


def _vm(vm: VmView, now: Look) -> Iterator[Alert]:
    if is_silent(vm, now.node):
        yield Alert(
            code="qemu_silent",
            subject=vm.name,
            message=f"the QEMU of vm {vm.name} does not answer libvirt",
            hint=silent_hint(vm.name),
        )
    if vm.sidecar != "ok" or vm.spec is None:
        yield Alert(
            code=f"sidecar_{vm.sidecar}",
            subject=vm.name,
            message=f"the sidecar of vm {vm.name} is {vm.sidecar}",
            hint="put the sidecar back, or destroy the vm, which removes its disks",
        )
        return
    if vm.phase in IN_TRANSIT:
        if vm.name in now.stuck:
            yield Alert(
                code="move_stuck",
                subject=vm.name,
                message=f"vm {vm.name} is {vm.phase} and has come no further for an hour",
                hint="see that both nodes and a controller are up, and journalctl -u ppn-fleet"
                f" there; ppn vm move --cancel {vm.name}",
            )
        return
    yield from _life(vm, vm.spec)
    files = {disk.name for disk in vm.disks}
    for name, _ in wanted_disks(vm.spec) if vm.phase == "ready" else ():
        if name not in files:
            yield Alert(
                code="disk_lost",
                subject=vm.name,
                message=f"the file of disk {name} of vm {vm.name} is gone or damaged",
                hint="put the file back, or destroy the vm",
            )
    weight = vm.weight
    if vm.state == "running" and now.node.cpu_weight.enforced and weight.actual != weight.wanted:
        yield Alert(
            code="weight_not_in_force",
            subject=vm.name,
            message=f"vm {vm.name} shall have CPU weight {weight.wanted}: {weight.reason}",
            hint="ppn host enforce",
        )


def _life(vm: VmView, spec: VmSpec) -> Iterator[Alert]:
    if vm.phase == "creating":
        yield Alert(
            code="vm_half_made",
            subject=vm.name,
            message=f"the creation of vm {vm.name} was cut short",
            hint="it is put in order as soon as libvirt answers",
        )
    elif vm.state == "missing":
        yield Alert(
            code="domain_missing",
            subject=vm.name,
            message=f"libvirt knows no domain of vm {vm.name}",
            hint=VM_HINT,
        )
    elif spec.state == "running" and vm.state == "stopped":
        yield Alert(
            code="qemu_gone",
            subject=vm.name,
            message=f"vm {vm.name} shall run and does not: its QEMU ended by itself or was killed",
            hint=VM_HINT,
        )
