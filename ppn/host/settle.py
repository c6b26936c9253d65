"""Waits until a VM's memory is steady before anybody uses it (DISK-03).

A drive that is handed to a VM writes straight into its memory, so all of that memory must be
there: what the balloon had taken comes back at that moment. Room for it is reserved first, and
given back when the balloon is steady, for then the VM holds it itself, or when anything fails.
A large VM is left to settle in the same way after its start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ppn.errors import PpnError, Refusal
from ppn.host.model import NodeState, VmView
from ppn.host.spec import VmSpec

# A VM with at least so much memory takes long enough to get it that its user would notice.
LARGE_MIB = 16 * 1024
# Tables and queues of the drive itself.
OVERHEAD_MIB = 64
STEADY_SECONDS = 5.0
STEADY_MIB = 16
POLL_SECONDS = 0.5
DEADLINE_SECONDS = 120.0


class NotSettled(PpnError):
    """A VM whose memory did not become steady in time."""

    code = "memory_unsettled"


class Stage(StrEnum):
    """How far a VM is on its way to being usable."""

    RESERVING = "reserving"
    ATTACHING = "attaching"
    STABILISING = "stabilising"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Sample:
    """A VM's memory in MiB at one moment, in seconds of any steady clock."""

    at: float
    mib: int


@dataclass(frozen=True)
class Clock:
    """A steady clock in seconds, and the way to wait on it."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


class Attachment(Protocol):
    """What attaching a drive with a memory buffer needs of its caller."""

    def reserve(self) -> None:
        """Keep the memory that `admit_buffer` says for the VM until `release`."""

    def release(self) -> None:
        """Give the reserved memory back; nothing when none is reserved."""

    def attach(self) -> None:
        """Give the VM its drive."""

    def memory_mib(self) -> int:
        """What the VM has at this moment."""

    def report(self, stage: Stage) -> None:
        """Tell whoever asks how far it is."""


def settles(spec: VmSpec) -> bool:
    """Whether a VM is so large that it is left to settle after its start."""
    return spec.memory_mib >= LARGE_MIB


def admit_buffer(vm: VmView, node: NodeState) -> int:
    """The memory in MiB to reserve before a drive is attached to a VM; change nothing.

    Args:
        vm: the VM as it is.
        node: the node as it is, with what others are about to take.

    Raises:
        Refusal: not running, or the node has not so much memory free now.
    """
    current = vm.memory.current_mib
    if vm.state != "running" or current is None:
        raise Refusal(
            f"vm {vm.name} is {vm.state}",
            code="vm_not_running",
            constraint="running VM",
            hint="start it first",
        )
    wanted = max(vm.memory.maximum_mib - current, 0) + OVERHEAD_MIB
    if wanted > node.pool.startable_mib:
        raise Refusal(
            f"vm {vm.name}: not enough free memory to attach a drive",
            code="memory_not_free",
            constraint="memory free now",
            wanted=wanted,
            free=max(node.pool.startable_mib, 0),
            unit="MiB",
            hint="take memory from other VMs (ppn host balloon), or stop one",
        )
    return wanted


def is_steady(samples: Sequence[Sample]) -> bool:
    """Whether memory has stayed the same, but for little, for long enough.

    Args:
        samples: in the order they were taken.
    """
    if not samples or samples[-1].at - samples[0].at < STEADY_SECONDS:
        return False
    recent = [sample for sample in samples if samples[-1].at - sample.at <= STEADY_SECONDS]
    figures = [sample.mib for sample in recent]
    return max(figures) - min(figures) <= STEADY_MIB


def settle(
    read_mib: Callable[[], int], clock: Clock, *, deadline: float = DEADLINE_SECONDS
) -> None:
    """Wait until a VM's memory is steady.

    Args:
        read_mib: what the VM has at this moment, in MiB.
        clock: to wait on.
        deadline: seconds it may take.

    Raises:
        NotSettled: it took longer.
    """
    begun = clock.now()
    samples: list[Sample] = []
    while True:
        samples.append(Sample(clock.now(), read_mib()))
        if is_steady(samples):
            return
        if samples[-1].at - begun >= deadline:
            raise NotSettled(
                f"memory still moves after {deadline:g} s: {samples[-1].mib} MiB now",
                hint="wait and look again (ppn host list); the VM goes on",
            )
        # Two windows are kept, so that one whole window is always known.
        samples = [sample for sample in samples if clock.now() - sample.at <= 2 * STEADY_SECONDS]
        clock.sleep(POLL_SECONDS)


def attach_settled(attachment: Attachment, clock: Clock) -> None:
    """Reserve, attach, wait until the memory is steady, and only then call the VM ready.

    Args:
        attachment: what is done, and who is told.
        clock: to wait on.

    Raises:
        NotSettled: the drive is attached and the memory still moves.
        PpnError: whatever a step failed with; the buffer is given back in every case.
    """
    reached = Stage.FAILED
    try:
        attachment.report(Stage.RESERVING)
        attachment.reserve()
        attachment.report(Stage.ATTACHING)
        attachment.attach()
        attachment.report(Stage.STABILISING)
        settle(attachment.memory_mib, clock)
        reached = Stage.READY
    finally:
        attachment.release()
        attachment.report(reached)
