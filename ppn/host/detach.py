"""Takes a disk from a VM, running or not: the explicit way, where a declaration is refused."""

from __future__ import annotations

from ppn.errors import Refusal
from ppn.host.apply import Admitted, Outcome, carry_out
from ppn.host.backend import Backend
from ppn.host.execute import as_errors, sweep
from ppn.host.lock import node_lock
from ppn.host.model import NodeState, VmView
from ppn.host.paths import Paths
from ppn.host.plan import Action, plan, plan_detach
from ppn.host.policy import is_silent, silent
from ppn.host.spec import VmSpec
from ppn.host.state import state_through


def admit_detach(name: str, disk: str, node: NodeState) -> VmSpec:
    """The VM as it shall be without that disk; change nothing.

    A disk that is detached already may be named again: to discard what was kept of it.

    Args:
        name: the VM.
        disk: the disk's name.
        node: the node as it is.

    Raises:
        Refusal: no such VM or disk, the root disk, or a VM of which too little is known.
    """
    vm = node.vm(name)
    if vm is None:
        raise _refusal(
            name, "the node has no such vm", code="vm_unknown", hint="ppn host list shows all"
        )
    if is_silent(vm, node):
        raise silent(name)
    if vm.state == "unknown":
        raise _refusal(
            name, "libvirt does not answer", code="libvirt_unavailable", hint="start libvirt"
        )
    if vm.spec is None:
        hint = "put the sidecar back, or declare the vm absent, which removes its disks"
        raise _refusal(
            name, f"its sidecar is {vm.sidecar}", code=f"sidecar_{vm.sidecar}", hint=hint
        )
    if vm.phase != "ready":
        raise _refusal(
            name, "it is only half made", code="vm_creating", hint="apply it again first"
        )
    if (vm.state == "running") != (vm.spec.state == "running"):
        # A detach neither starts nor stops a VM.
        reason = f"it is {vm.state} and shall be {vm.spec.state}"
        raise _refusal(name, reason, code="vm_not_as_declared", hint="start or stop it first")
    if disk == "root":
        raise _refusal(name, "it needs its root disk", code="disk_root", hint="name a data disk")
    others = tuple(other for other in vm.spec.disks if other.name != disk)
    if len(others) == len(vm.spec.disks) and vm.disk(disk) is None:
        known = ", ".join(other.name for other in vm.disks if other.name != "root") or "none"
        raise _refusal(
            name,
            f"it has no disk {disk} (it has: {known})",
            code="disk_unknown",
            hint="name one it has",
        )
    return vm.spec.model_copy(update={"disks": others})


def detach(
    name: str, disk: str, paths: Paths, *, discard: bool = False, uri: str | None = None
) -> Outcome:
    """Take a disk from a VM, where no host agent runs; a running guest goes on (DISK-01).

    The file is kept, reported as detached and counted, until it is discarded or the VM goes.
    A run that was killed converges when repeated.

    Args:
        name: the VM.
        disk: the disk's name.
        paths: the node's files.
        discard: remove the file too, for good.
        uri: libvirt's connection name; the environment's or the system's when None.

    Raises:
        Refusal: see `admit_detach`; nothing was changed.
        DiskHeld: the guest does not let go of it; it is still attached and declared.
        PpnError: a step failed.
    """
    with as_errors(f"detach {disk} of {name}"), node_lock(paths.lock), Backend(uri) as backend:
        sweep(paths)
        work = prepare_detach(name, disk, state_through(paths, backend), discard=discard)
        return carry_out(work, paths, backend)


def prepare_detach(name: str, disk: str, node: NodeState, *, discard: bool) -> Admitted:
    """Admit a detach and plan its steps; pure.

    Args:
        name: the VM.
        disk: the disk's name.
        node: the node as it is.
        discard: remove the file too, for good.

    Raises:
        Refusal: see `admit_detach`.
    """
    spec = admit_detach(name, disk, node)

    def steps(actual: VmView | None) -> tuple[Action, ...]:
        if actual is None:
            return plan(spec, actual)
        return plan_detach(spec, actual, disk, discard=discard)

    return Admitted(spec, node, steps)


def _refusal(name: str, reason: str, *, code: str, hint: str) -> Refusal:
    return Refusal(f"vm {name}: {reason}", code=code, constraint="VM disks", hint=hint)
