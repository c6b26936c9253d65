"""Makes one VM what its spec says, under the node's lock: refresh, admit, plan, do, look again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppn.errors import PpnError
from ppn.host.backend import Backend
from ppn.host.execute import Execution, as_errors, sweep
from ppn.host.kvm import probe_kvm
from ppn.host.lock import node_lock
from ppn.host.model import NodeState, VmView
from ppn.host.paths import Paths
from ppn.host.policy import Action, ActionKind, admit, plan
from ppn.host.spec import VmSpec
from ppn.host.state import state_through


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


def apply(spec: VmSpec, paths: Paths, *, uri: str | None = None) -> Outcome:
    """Make a VM what its spec says (HOST-13).

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
        node = state_through(paths, backend)
        admit(spec, node)
        actions = plan(spec, node.vm(spec.name))
        if not actions:
            return Outcome((), node.vm(spec.name))
        if any(action.kind is ActionKind.START for action in actions):
            node = _with_kvm_verdict(node, paths)
        execution = Execution(spec, node, paths, backend)
        execution.run(actions)
        vm = state_through(paths, backend).vm(spec.name)
        _check(spec, vm)
        return Outcome(actions, vm, tuple(execution.warnings))


def _with_kvm_verdict(node: NodeState, paths: Paths) -> NodeState:
    if node.kvm.probed:
        return node
    return node.model_copy(update={"kvm": probe_kvm(paths, node.boot_id)})


def _check(spec: VmSpec, vm: VmView | None) -> None:
    if left := plan(spec, vm):
        raise NotConverged(
            f"vm {spec.name}: still to do after all was done: {'; '.join(map(str, left))}",
            hint="run it again; if it stays so, look at libvirt's log of the domain",
        )
