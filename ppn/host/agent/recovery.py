"""What an agent that starts has to put in order: pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ppn.host.agent.policy import removal
from ppn.host.model import IN_TRANSIT, NodeState, VmView
from ppn.host.plan import ActionKind, plan
from ppn.host.spec import VmSpec


class Repair(StrEnum):
    """What is done with a VM that an earlier agent or boot left behind."""

    FINISH = "finish"
    TAKE_BACK = "take_back"
    REMOVE = "remove"
    START = "start"


AGAIN_SECONDS = 10.0
MOST_TRIES = 30

REASONS = {
    Repair.FINISH: "it was made, and only the record of it was missing",
    Repair.TAKE_BACK: "its creation was cut short, and nobody was told that it exists",
    Repair.REMOVE: "its removal was cut short",
    Repair.START: "it ran before the node booted",
}


@dataclass(frozen=True)
class Task:
    """A repair with the spec that carries it out."""

    vm: str
    repair: Repair
    spec: VmSpec


@dataclass(frozen=True)
class Failure:
    """Repairs of one VM that failed: its identity, how many, and when the last one did."""

    uuid: str | None
    count: int
    last: float


class Tries:
    """Repairs that failed: each is tried again, but not at once and not for ever.

    libvirt may end while the node is put in order, and a VM that ran is not to stay down for it.
    """

    def __init__(self) -> None:
        self._failed: dict[str, Failure] = {}

    def failed(self, vm: str, uuid: str | None, now: float) -> None:
        """Note that a VM's repair failed, at a reading of a clock."""
        before = self._failed.get(vm)
        self._failed[vm] = Failure(uuid, before.count + 1 if before is not None else 1, now)

    def done(self, vm: str) -> None:
        """Note that a VM's repair succeeded."""
        self._failed.pop(vm, None)

    def forget_all_but(self, vms: Container[str]) -> None:
        """Forget the VMs that somebody else has put in order."""
        self._failed = {vm: one for vm, one in self._failed.items() if vm in vms}

    def resting(self, now: float) -> frozenset[str]:
        """The VMs that are let alone for now."""
        return frozenset(vm for vm, one in self._failed.items() if now - one.last < AGAIN_SECONDS)

    @property
    def owed(self) -> dict[str, str | None]:
        """The VMs, by identity, for which the boot and what it cut short are still remembered."""
        return {vm: one.uuid for vm, one in self._failed.items() if one.count < MOST_TRIES}


def tasks(
    node: NodeState,
    *,
    rebooted: bool,
    unfinished: Mapping[str, str],
    busy: Container[str] = frozenset(),
    owed: Mapping[str, str | None] | None = None,
) -> tuple[Task, ...]:
    """What has to be put in order; a VM that runs is never stopped (HOST-06, HOST-07).

    A creation that was cut short is taken back, not finished: whoever asked for it had no answer
    and may have had it made elsewhere since. A removal that was cut short is finished. After a
    boot every VM that shall run is started again.

    Args:
        node: the node as it is.
        rebooted: the node has booted since an agent last put it in order.
        unfinished: operations that were cut short, by VM.
        busy: VMs that an operation of this agent is changing.
        owed: the VMs that were there when the agent started, later those whose repair failed, with
            their identity where it is known: of no other VM is asked what it was before.
    """
    if not node.libvirt.ok:
        return ()
    found: list[Task] = []
    for vm in node.vms:
        if vm.name not in busy:
            # A VM made anew under an old name is another one.
            due = owed is None or (vm.name in owed and owed[vm.name] in (None, vm.uuid))
            found += _tasks(vm, rebooted and due, unfinished.get(vm.name) if due else None)
    return tuple(found)


def _tasks(vm: VmView, rebooted: bool, cut_short: str | None) -> Iterator[Task]:
    if vm.phase in IN_TRANSIT:
        # Who moves it says which of its two nodes may run it.
        return
    if cut_short == "destroy":
        yield Task(vm.name, Repair.REMOVE, removal(vm.name, vm))
    elif vm.spec is None or vm.state == "unknown":
        # Whether a VM runs whose QEMU does not answer, nobody can tell.
        return
    elif vm.phase == "creating":
        if _is_made(vm, vm.spec):
            yield Task(vm.name, Repair.FINISH, vm.spec)
        else:
            yield Task(vm.name, Repair.TAKE_BACK, removal(vm.name, vm))
    elif rebooted and vm.spec.state == "running" and vm.state in ("stopped", "missing"):
        yield Task(vm.name, Repair.START, vm.spec)


def _is_made(vm: VmView, spec: VmSpec) -> bool:
    kinds = {action.kind for action in plan(spec, vm)}
    return vm.state == "running" or kinds <= {ActionKind.RECORD}
