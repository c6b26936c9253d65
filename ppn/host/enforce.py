"""Puts CPU weights and balloon sizes in force, live: no VM is restarted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ppn.errors import PpnError, Refusal
from ppn.host.backend import Backend
from ppn.host.lock import node_lock
from ppn.host.model import NodeState, VmView
from ppn.host.paths import Paths
from ppn.host.policy import silent
from ppn.host.repin import Repinning, repinnings
from ppn.host.sidecar import read_sidecar, write_sidecar
from ppn.host.state import state_through

SETTLE_SECONDS = 15.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Correction:
    """One thing that differs from the ledger: `what` is `weight` or `memory_mib`."""

    vm: str
    what: str
    actual: int | None
    wanted: int

    def __str__(self) -> str:
        return f"{self.what} of vm {self.vm}: {self.actual} -> {self.wanted}"


@dataclass(frozen=True)
class Enforced:
    """What an enforcement did, and how every VM stands now."""

    corrections: tuple[Correction | Repinning, ...]
    node: NodeState

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data, for `--json` output."""
        return {
            "changed": bool(self.corrections),
            "actions": [str(correction) for correction in self.corrections],
            "cpu_weight": self.node.cpu_weight.model_dump(),
            "vms": [
                {
                    "vm": vm.name,
                    "state": vm.state,
                    "weight": vm.weight.model_dump(),
                    "memory": vm.memory.model_dump(),
                    "pinning": vm.pinning.model_dump(),
                }
                for vm in self.node.vms
            ],
        }


@dataclass(frozen=True)
class Ballooned:
    """A guest's memory in MiB before and after; `reached` is False while the guest still lags."""

    vm: str
    wanted_mib: int
    before: VmView
    after: VmView

    @property
    def reached(self) -> bool:
        """Whether the guest has given or taken all that was asked for."""
        return self.after.memory.current_mib == self.wanted_mib

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data, for `--json` output."""
        return {
            "vm": self.vm,
            "wanted_mib": self.wanted_mib,
            "changed": self.before.memory.current_mib != self.after.memory.current_mib,
            "reached": self.reached,
            "before": self.before.memory.model_dump(),
            "after": self.after.memory.model_dump(),
        }


def corrections(node: NodeState) -> tuple[Correction, ...]:
    """What differs from the ledger and can be put right on this node while VMs run (CPU-07).

    A balloon between minimum and maximum is left where it is. Where the node cannot enforce
    weights there is nothing to correct; the state says why.
    """
    found: list[Correction] = []
    for vm in node.vms:
        if vm.state != "running":
            continue
        wanted, actual = vm.weight.wanted, vm.weight.actual
        if node.cpu_weight.enforced and actual is not None and actual != wanted:
            found.append(Correction(vm.name, "weight", actual, wanted))
        floor = min(vm.memory.minimum_mib, vm.memory.maximum_mib)
        current = vm.memory.current_mib
        if current is not None and current < floor:
            found.append(Correction(vm.name, "memory_mib", current, floor))
    return tuple(found)


def repin(change: Repinning, paths: Paths, backend: Backend) -> None:
    """Put a running VM's vCPUs on their CPUs; its sidecar says so first.

    Raises:
        LibvirtFailed: the kernel or libvirt refused.
    """
    file = paths.vm(change.vm).sidecar
    sidecar = read_sidecar(file)
    if sidecar is not None and sidecar.pins != change.pins:
        write_sidecar(file, sidecar.model_copy(update={"pins": change.pins}))
    backend.pin(change.vm, change.pins.cpus)


def enforce(paths: Paths, *, uri: str | None = None) -> Enforced:
    """Put the ledger in force for every running VM, where no host agent runs.

    Args:
        paths: the node's files.
        uri: libvirt's connection name; the environment's or the system's when None.

    Raises:
        PpnError: the ledger is not usable, or libvirt failed.
    """
    with node_lock(paths.lock), Backend(uri) as backend:
        return enforce_through(paths, backend)


def enforce_through(paths: Paths, backend: Backend) -> Enforced:
    """Put the ledger in force over a connection that stands already; see `enforce`."""
    node = state_through(paths, backend)
    if not node.ledger.ok:
        error = node.ledger.error
        raise PpnError(
            f"nothing was enforced: {error.message if error else 'the ledger is not usable'}",
            code=error.code if error else "ledger_unusable",
            hint=error.hint if error else "",
        )
    wanted: tuple[Correction | Repinning, ...] = (*corrections(node), *repinnings(node))
    for correction in wanted:
        if isinstance(correction, Repinning):
            repin(correction, paths, backend)
        elif correction.what == "weight":
            backend.set_weight(correction.vm, correction.wanted)
        else:
            backend.set_memory(correction.vm, correction.wanted)
    return Enforced(wanted, state_through(paths, backend) if wanted else node)


def put_weight_right(vm: str, paths: Paths, backend: Backend) -> None:
    """Give a running VM the CPU weight of the ledger, judged on the node as it is now (CPU-03).

    Args:
        vm: the VM; nobody else may be changing it.
        paths: the node's files.
        backend: a connection to libvirt.

    Raises:
        LibvirtFailed: the weight could not be set.
    """
    for one in weights_astray(state_through(paths, backend)):
        if one.vm == vm:
            backend.set_weight(vm, one.wanted)


def weights_astray(node: NodeState) -> tuple[Correction, ...]:
    """Which CPU weights differ from the ledger's; none while the ledger cannot be trusted."""
    found = corrections(node) if node.ledger.ok else ()
    return tuple(one for one in found if one.what == "weight")


def admit_balloon(vm: VmView | None, name: str, mib: int) -> VmView:
    """The VM whose balloon may go to this size.

    Raises:
        Refusal: no such VM, not running, silent, below its minimum or above its memory (BAL-10).
    """
    if vm is not None and vm.state == "unknown":
        raise silent(name)
    if vm is None or vm.state != "running":
        raise Refusal(
            f"vm {name} is {vm.state if vm else 'not known on this node'}",
            code="vm_not_running" if vm else "vm_unknown",
            constraint="running VM",
            hint="ppn host list shows what runs",
        )
    memory = vm.memory
    if mib < memory.minimum_mib:
        raise Refusal(
            f"vm {name}: its minimum is {memory.minimum_mib} MiB",
            code="below_minimum",
            constraint="balloon minimum",
            wanted=mib,
            free=memory.minimum_mib,
            unit="MiB",
            hint="ask for at least the minimum, or lower it in the ledger",
        )
    if mib > memory.maximum_mib:
        raise Refusal(
            f"vm {name}: it was made with {memory.maximum_mib} MiB",
            code="above_maximum",
            constraint="VM memory",
            wanted=mib,
            free=memory.maximum_mib,
            unit="MiB",
            hint="ask for at most its memory",
        )
    return vm


def balloon(name: str, mib: int, paths: Paths, *, uri: str | None = None) -> Ballooned:
    """Move a guest's balloon, where no host agent runs, and wait a moment for the guest (BAL-10).

    Args:
        name: the VM.
        mib: memory the guest shall have, in MiB.
        paths: the node's files.
        uri: libvirt's connection name; the environment's or the system's when None.

    Raises:
        Refusal: see `admit_balloon`; nothing was changed.
        LibvirtFailed: the balloon could not be moved.
    """
    with node_lock(paths.lock), Backend(uri) as backend:
        return balloon_through(name, mib, paths, backend)


def balloon_through(name: str, mib: int, paths: Paths, backend: Backend) -> Ballooned:
    """Move a guest's balloon over a connection that stands already; see `balloon`."""
    before = admit_balloon(state_through(paths, backend).vm(name), name, mib)
    backend.set_memory(name, mib)
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        after = state_through(paths, backend).vm(name) or before
        if after.memory.current_mib == mib or time.monotonic() >= end:
            return Ballooned(name, mib, before, after)
        time.sleep(POLL_SECONDS)
