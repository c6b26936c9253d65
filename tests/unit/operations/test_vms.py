"""VMs: applied when they differ, enforced when the ledger moved on, left alone otherwise."""

from __future__ import annotations

from typing import Any

from facts.host_state import Hypervisor, HypervisorState
from operations import vms
from ppn.host.forecast import after
from ppn.host.model import Enforcement, NodeState, Pins, VmPinning, VmWeight
from ppn.host.spec import VmSpec
from ppn.pool.ledger import Grant, Withdrawal
from tests.unit.deploys.test_declared import node
from tests.unit.operations.yielded import refusal, texts, yielded

WEB = VmSpec(name="web", image="tiny", vcpus=2, memory_mib=512, hostname="web")
GRANT = Grant("web", weight=300, minimum_mib=256)
APPLY = "/opt/ppn/venv/bin/ppn host apply"
ENFORCE = "/opt/ppn/venv/bin/ppn host enforce"


def running(weight: int = 300, current_mib: int = 512, enforced: bool = True) -> NodeState:
    """A node on which `web` runs as declared, with what libvirt reads back."""
    state = after(node(), WEB)
    (vm,) = state.vms
    memory = vm.memory.model_copy(update={"current_mib": current_mib, "minimum_mib": 256})
    read_back = VmWeight(wanted=300, actual=weight, enforced=enforced and weight == 300)
    vm = vm.model_copy(update={"weight": read_back, "memory": memory})
    return state.model_copy(
        update={"vms": (vm,), "cpu_weight": Enforcement(enforced=enforced, reason="")}
    )


def commands(state: NodeState | None, *specs: VmSpec, **changes: Any) -> list[str]:
    facts: dict[type, Any] = {HypervisorState: Hypervisor(state)}
    granted = tuple(changes.values()) or (GRANT,)
    found, _ = yielded(vms.declared, facts, vms=specs or (WEB,), changes=granted)
    return texts(found)


def test_as_declared() -> None:
    assert commands(running()) == []


def test_a_node_without_ppn_gets_everything() -> None:
    assert commands(None) == [APPLY]


def test_a_missing_vm_is_applied_over_standard_input() -> None:
    found, _ = yielded(
        vms.declared, {HypervisorState: Hypervisor(node())}, vms=(WEB,), changes=(GRANT,)
    )
    (command,) = found
    assert VmSpec.model_validate_json(command.connector_arguments["_stdin"]) == WEB


def test_removals_come_first() -> None:
    old = WEB.model_copy(update={"name": "old", "hostname": "old"})
    state = after(running(), old)
    gone = old.model_copy(update={"state": "absent"})
    bigger = WEB.model_copy(update={"disk_gib": 9})
    facts: dict[type, Any] = {HypervisorState: Hypervisor(state)}
    found, _ = yielded(vms.declared, facts, vms=(bigger, gone), changes=(GRANT, Withdrawal("old")))
    names = [VmSpec.model_validate_json(one.connector_arguments["_stdin"]).name for one in found]
    assert names == ["old", "web"]


def test_an_absent_vm_stays_absent() -> None:
    gone = WEB.model_copy(update={"state": "absent"})
    assert commands(node(), gone, web=Withdrawal("web")) == []


def test_a_weight_that_moved_on_is_enforced() -> None:
    """CPU-03: also one that was changed by hand on the node."""
    assert commands(running(weight=100)) == [ENFORCE]


def test_a_weight_no_node_could_enforce_is_no_change() -> None:
    assert commands(running(weight=0, enforced=False)) == []


def test_memory_below_a_raised_minimum_is_enforced() -> None:
    """BAL-08: no VM stays below its minimum."""
    assert commands(running(current_mib=128)) == [ENFORCE]


def test_vcpus_that_strayed_are_put_back() -> None:
    """NUMA-03: only where the node can pin; otherwise its state says why not."""
    state = running()
    (vm,) = state.vms
    astray = VmPinning(wanted=Pins(cpus=(0, 1)), actual=((0,), (0,)))
    vms_of = {"vms": (vm.model_copy(update={"pinning": astray}),)}
    pinning = {"pinning": Enforcement(enforced=True)}
    assert commands(state.model_copy(update=vms_of | pinning)) == [ENFORCE]
    assert commands(state.model_copy(update=vms_of)) == []


def test_unreadable_state() -> None:
    found, _ = yielded(vms.declared, {HypervisorState: None}, vms=(WEB,), changes=(GRANT,))
    assert "cannot read the VMs" in refusal(found)
