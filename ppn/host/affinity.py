"""Where the kernel lets a VM's vCPU threads run, read from the threads themselves (NUMA-03)."""

from __future__ import annotations

import re
from pathlib import Path

from ppn.host.model import Enforcement, Pins, Topology, VmPinning
from ppn.host.numa import sockets_of
from ppn.host.topology import parse_cpu_list

# A process id is this machine's, wherever the node's files are.
PROC = Path("/proc")
# QEMU names its threads so where libvirt asks for it, as libvirt always does.
VCPU_THREAD = re.compile(r"^CPU (\d+)/(?:KVM|TCG)$")
ALLOWED = re.compile(r"^Cpus_allowed_list:\s*(\S+)$", re.MULTILINE)


def vcpu_affinity(pid: int, proc: Path = PROC) -> tuple[tuple[int, ...], ...]:
    """For each vCPU the CPUs its thread may run on; empty when the threads cannot be read.

    Args:
        pid: of the VM's QEMU.
        proc: the kernel's view of processes.
    """
    found: dict[int, tuple[int, ...]] = {}
    try:
        threads = list((proc / str(pid) / "task").glob("[0-9]*"))
    except OSError:
        # QEMU ended between the reading of its number and this look.
        return ()
    for task in threads:
        try:
            thread = VCPU_THREAD.match((task / "comm").read_text())
            allowed = ALLOWED.search((task / "status").read_text()) if thread else None
        except OSError:
            # The thread ended while it was looked at; QEMU's workers come and go.
            continue
        if thread and allowed:
            found[int(thread[1])] = parse_cpu_list(allowed[1])
    return tuple(found[vcpu] for vcpu in sorted(found))


def judge_pinning(
    pins: Pins | None,
    actual: tuple[tuple[int, ...], ...],
    *,
    running: bool,
    support: Enforcement,
    topology: Topology,
) -> VmPinning:
    """What a VM's pinning is, with the reason where it is not as it should be.

    Args:
        pins: the CPUs it holds, from its sidecar.
        actual: for each vCPU the CPUs its thread may run on.
        running: whether it runs.
        support: whether VMs can be pinned on this node.
        topology: the node's sockets.
    """
    pinned = bool(actual) and pins is not None and actual == tuple((cpu,) for cpu in pins.cpus)
    reason = ""
    if not support.enforced:
        reason = support.reason
    elif pins is None:
        reason = "it holds no CPUs of its own; ppn host enforce gives it some if they are free"
    elif not running:
        reason = "not running"
    elif not actual:
        reason = "its threads cannot be read"
    elif not pinned:
        reason = "its threads may run elsewhere; ppn host enforce puts it right"
    elif len(sockets := sockets_of(pins, topology)) > 1:
        reason = f"spread over sockets {_words(sockets)}: none had {len(pins.cpus)} CPUs free"
    return VmPinning(wanted=pins, actual=actual, pinned=pinned, reason=reason)


def _words(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
