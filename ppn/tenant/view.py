"""What a tenant is shown: its own, without a word of the node that it is on (INV-03)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ppn.errors import PpnError, Refusal
from ppn.tenant.model import Allocation, Amount, State
from ppn.wire.agent import Console, Timeline
from ppn.wire.fleet import PlacedVm
from ppn.wire.heartbeat import VmReport
from ppn.wire.problems import NoCapacity
from ppn.wire.tenant import (
    AllocationReport,
    Figures,
    OpenPort,
    OwnVm,
    TenantConsole,
    TenantOperation,
    TenantState,
    TenantTimeline,
    TenantVm,
)

# What the pool may say of itself in its own words: none of these names a node.
PLAIN = frozenset(
    {
        "amount_invalid",
        "body_late",
        "body_too_long",
        "disk_kept",
        "fleet_unreachable",
        "internal",
        "method_unknown",
        "order_differs",
        "quota_exceeded",
        "rate_limited",
        "request_invalid",
        "route_unknown",
        "scope_refused",
        "spec_invalid",
        "tenant_unknown",
        "token_refused",
        "too_many_at_once",
        "vm_lost",
        "vm_unknown",
    }
)
NOT_WRITTEN = "the change could not be written down, so it was not made"
NOT_TOLD = (
    "the pool has not told yet what became of it: look at your VMs, or ask again with the same"
    " Idempotency-Key"
)
# For what is refused by one node or another: said in words of our own, with its code.
TEXTS = {
    "audit_damaged": NOT_WRITTEN,
    "audit_unavailable": NOT_WRITTEN,
    "disk_exists": "the VM has a disk of that name already",
    "disk_root": "a VM needs its root disk",
    "disk_unknown": "the VM has no such disk",
    "image_unknown": "the pool has no such image",
    "nodes_silent": "a part of the pool is not heard, and the VM may be there",
    "memory_exhausted": "the VM's node has not that much memory left",
    "order_elsewhere": NOT_TOLD,
    "outcome_unknown": NOT_TOLD,
    "store_unavailable": "the pool cannot say just now what is yours",
    "vcpus_exhausted": "the VM's node has not that many CPUs left",
    "vcpus_odd": "the pool gives even numbers of vCPUs",
    "vm_busy": "another operation on the VM is under way",
    "vm_creating": "the VM is being made",
    "vm_moving": "the pool is moving the VM",
    "vm_replaced": "the VM that was to be removed is gone, and another one has its id now",
    "vm_running": "the VM has to be stopped first",
    "vm_undecided": NOT_TOLD,
    "warming_up": "the pool is starting",
}
ASK_AGAIN = "ask again later"
UNHEARD: dict[State, TenantState] = {
    "reserved": "creating",
    "settled": "unknown",
    "removing": "removing",
}


def tenant_vm(report: VmReport, *, stale: bool = False, removing: bool = False) -> TenantVm:
    """A VM as its tenant sees it.

    Args:
        report: as its node reports it.
        stale: the node has not been heard lately.
        removing: the tenant asked for its end.
    """
    return TenantVm(
        id=report.id,
        owner=report.owner,
        state="removing" if removing else report.state,
        created=report.created,
        image=report.image,
        label=report.label,
        vcpus=report.vcpus,
        memory_mib=report.memory_mib,
        disk_gib=report.disk_gib,
        disks=report.disks,
        ports=tuple(OpenPort(guest=port.guest, protocol=port.protocol) for port in report.ports),
        stale=stale,
    )


def own_vm(answer: Mapping[str, Any], allocation: Allocation | None = None) -> OwnVm:
    """A VM from what a controller answered.

    Args:
        answer: a placed VM, or the result of a change.
        allocation: what the store has of it.
    """
    report = VmReport.model_validate(answer["vm"], strict=False)
    removing = allocation is not None and allocation.state == "removing"
    vm = tenant_vm(report, stale=bool(answer.get("stale", False)), removing=removing)
    return OwnVm(vm=vm, changed=bool(answer.get("changed", False)))


def listing(allocations: Iterable[Allocation], placed: Iterable[Any]) -> list[OwnVm]:
    """A tenant's VMs: what the store has of it, each with what the pool says of it.

    Args:
        allocations: of the tenant.
        placed: as a controller lists VMs; those of others are passed over.
    """
    known = {
        found.vm.id: found
        for found in (PlacedVm.model_validate(one, strict=False) for one in placed)
    }
    return [_listed(one, known.get(one.vm)) for one in sorted(allocations, key=lambda one: one.vm)]


def _listed(allocation: Allocation, placed: PlacedVm | None) -> OwnVm:
    removing = allocation.state == "removing"
    if placed is not None and placed.vm.owner == allocation.tenant:
        return OwnVm(vm=tenant_vm(placed.vm, stale=placed.stale, removing=removing))
    return unheard(allocation)


def unheard(allocation: Allocation) -> OwnVm:
    """A VM of which the pool says nothing just now, from what it takes of the ceiling."""
    amount = allocation.amount
    vm = TenantVm(
        id=allocation.vm,
        owner=allocation.tenant,
        state=UNHEARD[allocation.state],
        vcpus=amount.vcpus,
        memory_mib=amount.memory_mib,
        disk_gib=amount.disk_gib,
        stale=True,
    )
    return OwnVm(vm=vm)


def tenant_timeline(answer: Mapping[str, Any]) -> TenantTimeline:
    """A VM's timeline without its messages, which speak of the node."""
    found = Timeline.model_validate({key: answer[key] for key in Timeline.model_fields})
    return TenantTimeline(
        vm=found.vm,
        operations=tuple(
            TenantOperation(**one.model_dump(exclude={"message", "steps"}), steps=one.steps)
            for one in found.operations
        ),
    )


def tenant_console(answer: Mapping[str, Any]) -> TenantConsole:
    """What the guest itself wrote."""
    found = Console.model_validate({key: answer[key] for key in Console.model_fields})
    return TenantConsole(vm=found.vm, text=found.text, size_bytes=found.size_bytes)


def figures(amount: Amount) -> Figures:
    """An amount on the wire."""
    return Figures(
        memory_mib=amount.memory_mib,
        vcpus=amount.vcpus,
        disk_gib=amount.disk_gib,
        vms=amount.vms,
    )


def allocation_report(allocation: Allocation) -> AllocationReport:
    """An allocation as reconciliation reads it."""
    held = allocation.held
    return AllocationReport(
        vm=allocation.vm,
        tenant=allocation.tenant,
        memory_mib=held.memory_mib,
        vcpus=held.vcpus,
        disk_gib=held.disk_gib,
        state=allocation.state,
        changing=allocation.pending is not None,
        since=allocation.since.isoformat(timespec="seconds"),
    )


def told(error: PpnError) -> PpnError:
    """An error as a tenant is told of it: its code, and nothing that names a node.

    Args:
        error: as it was raised here, or by the pool.
    """
    if isinstance(error, NoCapacity):
        reasons = ", ".join(sorted({node.code for node in error.nodes})) or "none is heard"
        return Refusal(
            f"no node of the pool can take the VM: {reasons}",
            code="no_capacity",
            constraint="capacity of the pool",
            hint="ask for less, or ask again later",
        )
    if error.code in PLAIN:
        return error
    text = TEXTS.get(error.code, "the pool cannot do that")
    if not isinstance(error, Refusal):
        return PpnError(text, code=error.code, hint=ASK_AGAIN)
    # Its numbers are those of a node, and tell what others have there.
    return Refusal(text, code=error.code, constraint=error.constraint, hint=ASK_AGAIN)
