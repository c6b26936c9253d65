"""Makes one VM what its spec says: refresh, admit, plan, do, look again.

To admit is quick and decides over the whole node, so it is done under a lock; to carry out takes
long and touches one VM alone. The host agent does the first under its lock table and the second
beside other VMs' changes; where no agent runs, the node's file lock is held over both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ppn.errors import PpnError
from ppn.host.backend import Backend
from ppn.host.execute import Execution, OnStep, as_errors, sweep
from ppn.host.kvm import ensure_verdict
from ppn.host.lock import node_lock
from ppn.host.model import NodeState, VmView
from ppn.host.paths import Paths
from ppn.host.policy import Action, ActionKind, admit, is_silent, plan, silent_hint
from ppn.host.spec import VmSpec
from ppn.host.state import state_through

# How long a QEMU may keep libvirt waiting once all is done: on a busy node a start takes its time.
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.5

Steps = Callable[[VmView | None], tuple[Action, ...]]


class NotConverged(PpnError):
    """Every step was carried out, and yet the VM is not what its spec says."""

    code = "not_converged"


@dataclass(frozen=True)
class Outcome:
    """What an apply did.

    Args:
        actions: the steps that were carried out; none when nothing differed.
        vm: the VM as it is now; None when it is gone.
        warnings: what went another way than wanted, in words.
    """

    actions: tuple[Action, ...]
    vm: VmView | None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data, for `--json` output."""
        return {
            "changed": bool(self.actions),
            "actions": [str(action) for action in self.actions],
            "vm": self.vm.model_dump(mode="json") if self.vm is not None else None,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Admitted:
    """A change the node accepted.

    Args:
        spec: the VM as it shall be.
        node: the node it was judged on.
        steps: the steps that lead there from what is; none once it is there.
    """

    spec: VmSpec
    node: NodeState
    steps: Steps

    @property
    def actions(self) -> tuple[Action, ...]:
        """The steps from the VM as it was when the change was admitted."""
        return self.steps(self.node.vm(self.spec.name))


def prepare(spec: VmSpec, node: NodeState) -> Admitted:
    """Admit a VM and plan its steps; pure.

    Args:
        spec: the VM as it shall be.
        node: the node as it is, with what other changes will take counted as taken.

    Raises:
        Refusal: the node may not or cannot.
    """
    admit(spec, node)
    return Admitted(spec, node, partial(plan, spec))


def carry_out(
    work: Admitted, paths: Paths, backend: Backend, *, on_step: OnStep | None = None
) -> Outcome:
    """Take the steps of an admitted change and see that they led where they should.

    Args:
        work: the change; nobody else may be changing this VM.
        paths: the node's files.
        backend: a connection to libvirt.
        on_step: told of each step before it is taken.

    Raises:
        PpnError: a step failed; what it made of a new VM has been taken back.
    """
    actions = work.actions
    if not actions:
        return Outcome((), work.node.vm(work.spec.name))
    starting = any(action.kind is ActionKind.START for action in actions)
    node = _with_kvm_verdict(work.node, paths) if starting else work.node
    execution = Execution(work.spec, node, paths, backend)
    execution.run(actions, on_step=on_step)
    vm = _answering(work.spec.name, paths, backend)
    if left := work.steps(vm):
        raise NotConverged(
            f"vm {work.spec.name}: still to do after all was done: {'; '.join(map(str, left))}",
            hint="run it again; if it stays so, look at libvirt's log of the domain",
        )
    return Outcome(actions, vm, tuple(execution.warnings))


def apply(spec: VmSpec, paths: Paths, *, uri: str | None = None) -> Outcome:
    """Make a VM what its spec says, where no host agent runs (HOST-13).

    A run that is killed at any point converges when repeated; a run that fails takes back what
    it made of a new VM.

    Args:
        spec: the VM as it shall be.
        paths: the node's files.
        uri: libvirt's connection name; the environment's or the system's when None.

    Raises:
        Refusal: the node may not or cannot; nothing was changed.
        PpnError: a step failed.
    """
    with as_errors(f"apply vm {spec.name}"), node_lock(paths.lock), Backend(uri) as backend:
        sweep(paths)
        return carry_out(prepare(spec, state_through(paths, backend)), paths, backend)


def _answering(name: str, paths: Paths, backend: Backend) -> VmView | None:
    """The VM as it is; a QEMU that has just started may need a while before it answers libvirt."""
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        node = state_through(paths, backend)
        vm = node.vm(name)
        if vm is None or not is_silent(vm, node):
            return vm
        if time.monotonic() >= end:
            raise NotConverged(
                f"vm {name}: all was done, and its QEMU does not answer libvirt",
                code="qemu_silent",
                hint=silent_hint(name),
            )
        time.sleep(POLL_SECONDS)


def _with_kvm_verdict(node: NodeState, paths: Paths) -> NodeState:
    if node.kvm.probed:
        return node
    return node.model_copy(update={"kvm": ensure_verdict(paths, node.boot_id)[1]})
