"""The steps that make a VM what its spec says: pure, the same on every side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ppn.host.model import VmView
from ppn.host.network import lease_wanted
from ppn.host.spec import VmSpec

MIB_PER_GIB = 1024


class ActionKind(StrEnum):
    """The kinds of step a change to one VM is made of."""

    RESERVE = "reserve"
    LEASE = "lease"
    CREATE_DISK = "create_disk"
    GROW_DISK = "grow_disk"
    WRITE_SEED = "write_seed"
    DEFINE = "define"
    ATTACH_DISK = "attach_disk"
    DETACH_DISK = "detach_disk"
    START = "start"
    STOP = "stop"
    UNDEFINE = "undefine"
    REMOVE_FILES = "remove_files"
    RECORD = "record"
    DISCARD_DISK = "discard_disk"


TEXTS = {
    ActionKind.RESERVE: "reserve the folder of vm {vm}",
    ActionKind.LEASE: "give vm {vm} its address and ports",
    ActionKind.CREATE_DISK: "create disk {disk} of vm {vm} ({size_gib} GiB)",
    ActionKind.GROW_DISK: "grow disk {disk} of vm {vm} to {size_gib} GiB",
    ActionKind.WRITE_SEED: "write the seed of vm {vm}",
    ActionKind.DEFINE: "define vm {vm}",
    ActionKind.ATTACH_DISK: "attach disk {disk} to vm {vm}",
    ActionKind.DETACH_DISK: "detach disk {disk} from vm {vm}",
    ActionKind.START: "start vm {vm}",
    ActionKind.STOP: "stop vm {vm}",
    ActionKind.UNDEFINE: "undefine vm {vm}",
    ActionKind.REMOVE_FILES: "remove the files of vm {vm}",
    ActionKind.RECORD: "record the state of vm {vm}",
    ActionKind.DISCARD_DISK: "discard disk {disk} of vm {vm}",
}


@dataclass(frozen=True)
class Action:
    """One step; `disk` and `size_gib` are set where the kind is about a disk."""

    kind: ActionKind
    vm: str
    disk: str = ""
    size_gib: int = 0

    def __str__(self) -> str:
        return TEXTS[self.kind].format(vm=self.vm, disk=self.disk, size_gib=self.size_gib)


def wanted_disks(spec: VmSpec) -> Iterator[tuple[str, int]]:
    """Name and size in GiB of every disk of a VM, the root disk first."""
    yield "root", spec.disk_gib
    for disk in spec.disks:
        yield disk.name, disk.size_gib


def plan(spec: VmSpec, actual: VmView | None) -> tuple[Action, ...]:
    """The steps from what is to what shall be, in order; none when nothing differs.

    Every prefix of the steps can be carried out again: a run that was killed converges when
    repeated. What may not be done at all is for `admit` to say, first.

    Args:
        spec: the VM as it shall be.
        actual: the VM as it is; None when there is none.
    """
    if spec.state == "absent":
        return tuple(_removal(spec.name, actual))
    if actual is not None and _half_made_otherwise(spec, actual):
        return (*_removal(spec.name, actual), *_convergence(spec, None))
    return tuple(_convergence(spec, actual))


def plan_detach(spec: VmSpec, actual: VmView, disk: str, *, discard: bool) -> tuple[Action, ...]:
    """The steps that take a disk from a VM, in order; none when nothing differs (DISK-01).

    The file goes last: until then a killed run leaves a disk that is kept, which can be attached
    again or discarded.

    Args:
        spec: the VM as it shall be, without that disk.
        actual: the VM as it is.
        disk: the disk's name.
        discard: its file shall go too, for good.
    """
    steps: list[Action] = []
    present = actual.disk(disk)
    if present is not None and present.attached:
        steps.append(Action(ActionKind.DETACH_DISK, spec.name, disk))
    steps += plan(spec, actual)
    if present is not None and discard:
        steps.append(Action(ActionKind.DISCARD_DISK, spec.name, disk))
    return tuple(steps)


def _half_made_otherwise(spec: VmSpec, actual: VmView) -> bool:
    """Whether a killed creation left what this VM has no use for: then it is begun anew."""
    if actual.phase != "creating" or actual.spec is None:
        return False
    wanted = {name: size * MIB_PER_GIB for name, size in wanted_disks(spec)}
    return (actual.spec.image, actual.spec.owner) != (spec.image, spec.owner) or any(
        disk.size_mib > wanted.get(disk.name, 0) for disk in actual.disks
    )


def _removal(name: str, actual: VmView | None) -> Iterator[Action]:
    if actual is None:
        return
    if actual.state in ("running", "unknown"):
        yield Action(ActionKind.STOP, name)
    if actual.state != "missing":
        yield Action(ActionKind.UNDEFINE, name)
    yield Action(ActionKind.REMOVE_FILES, name)


def _convergence(spec: VmSpec, actual: VmView | None) -> Iterator[Action]:
    running = actual is not None and actual.state == "running"
    if actual is None:
        yield Action(ActionKind.RESERVE, spec.name)
    if running and spec.state == "stopped":
        yield Action(ActionKind.STOP, spec.name)
        running = False
    leased = actual.lease if actual is not None else None
    moving = actual is not None and lease_wanted(spec, leased)
    if moving:
        yield Action(ActionKind.LEASE, spec.name)
    yield from _disk_steps(spec, actual)
    if actual is None or not actual.seed or moving or _seed_differs(spec, actual):
        yield Action(ActionKind.WRITE_SEED, spec.name)
    if running and actual is not None:
        yield from _attachments(spec, actual)
    starting = spec.state == "running" and not running
    # Defined anew at each start: the accelerator and the weight may have changed meanwhile.
    if starting or actual is None or actual.digest != spec.digest():
        yield Action(ActionKind.DEFINE, spec.name)
    if starting:
        yield Action(ActionKind.START, spec.name)
    if actual is None or actual.phase != "ready" or actual.spec != spec:
        yield Action(ActionKind.RECORD, spec.name)


def _disk_steps(spec: VmSpec, actual: VmView | None) -> Iterator[Action]:
    for name, size_gib in wanted_disks(spec):
        present = actual.disk(name) if actual is not None else None
        if present is None:
            yield Action(ActionKind.CREATE_DISK, spec.name, name, size_gib)
        elif present.size_mib < size_gib * MIB_PER_GIB:
            yield Action(ActionKind.GROW_DISK, spec.name, name, size_gib)


def _attachments(spec: VmSpec, actual: VmView) -> Iterator[Action]:
    for disk in spec.disks:
        present = actual.disk(disk.name)
        if present is None or not present.attached:
            yield Action(ActionKind.ATTACH_DISK, spec.name, disk.name, disk.size_gib)


def _seed_differs(spec: VmSpec, actual: VmView) -> bool:
    was = actual.spec
    return was is None or (was.hostname, was.ssh_keys, was.user_data) != (
        spec.hostname,
        spec.ssh_keys,
        spec.user_data,
    )
