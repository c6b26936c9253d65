"""What an agent that starts has to put in order: pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ppn.host.agent.policy import removal
from ppn.host.model import NodeState, VmView
from ppn.host.plan import ActionKind, plan
from ppn.host.spec import VmSpec


class Repair(StrEnum):
    """What is done with a VM that an earlier agent or boot left behind."""

    FINISH = "finish"
    TAKE_BACK = "take_back"
    REMOVE = "remove"
    START = "start"


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


def tasks(
    node: NodeState,
    *,
    rebooted: bool,
    unfinished: Mapping[str, str],
    busy: Container[str] = frozenset(),
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
    """
    if not node.libvirt.ok:
        return ()
    found = (
        task
        for vm in node.vms
        if vm.name not in busy
        for task in _tasks(vm, rebooted, unfinished.get(vm.name))
    )
    return tuple(found)


def _tasks(vm: VmView, rebooted: bool, cut_short: str | None) -> Iterator[Task]:
    if cut_short == "destroy":
        yield Task(vm.name, Repair.REMOVE, removal(vm.name, vm))
    elif vm.spec is None:
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
