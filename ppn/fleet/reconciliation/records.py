"""Compares the tenant stores' records with the VMs that the nodes have."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ppn.fleet.reconciliation import classes
from ppn.fleet.reconciliation.model import Finding, Views
from ppn.fleet.reconciliation.pairs import in_flight, is_late, places
from ppn.wire.heartbeat import VmReport
from ppn.wire.tenant import AllocationReport

# No tenants: the operator's VMs count for no quota, and nobody's cannot be compared.
NO_TENANTS = frozenset({"operator", "unknown"})


def record_findings(views: Views) -> Iterator[Finding]:
    """What differs between the tenant stores and the nodes.

    A record without a VM is judged when every node of the pool answered, a VM without a record when
    every tenant proxy did; a pool without a tenant proxy has no records to compare.

    Args:
        views: what the parts say.
    """
    held, moving = places(views), in_flight(views)
    records: dict[str, AllocationReport] = {}
    for store in views.stores:
        for one in store.allocations:
            other = records.setdefault(one.vm, one)
            if _figures(other) != _figures(one) and one.vm not in moving:
                text = f"{store.name} has another record of vm {one.vm} than {views.stores[0].name}"
                yield classes.RECORDS_DIFFER.of(one.vm, "", text)
    unreadable = {
        alert.subject
        for node in views.nodes
        for alert in node.alerts
        if alert.code.startswith("sidecar_")
    }
    # A node that only a controller knows was not asked, and may have the VM.
    hypervisors = {one.name for controller in views.controllers for one in controller.nodes}
    whole = {one.name for one in views.nodes} >= hypervisors | set(views.known)
    for vm in sorted(records.keys() - moving):
        yield from _record(records[vm], held.get(vm, []), views.at, whole, vm in unreadable)
    if views.stores and not views.lacks("tenant proxy"):
        for vm in sorted(held.keys() - records.keys() - moving):
            for node, report in held[vm]:
                if report.owner not in NO_TENANTS:
                    text = f"vm {vm} of {report.owner} is in no tenant store"
                    yield classes.VM_UNRECORDED.of(vm, node, text)


def _record(
    record: AllocationReport,
    held: list[tuple[str, VmReport]],
    at: datetime,
    whole: bool,
    unreadable: bool,
) -> Iterator[Finding]:
    """What is wrong with one record; `whole` when every node answered."""
    vm = record.vm
    if record.state != "settled" or record.changing:
        removing = record.state == "removing"
        stuck = classes.REMOVAL_STUCK if removing else classes.RESERVATION_LEAKED
        if is_late(record, at):
            state = "changing" if record.state == "settled" else record.state
            text = f"vm {vm} of tenant {record.tenant} is {state} since {record.since}"
            yield stuck.of(vm, held[0][0] if held else "", text)
        return
    if not held and whole:
        text = f"tenant {record.tenant} has vm {vm} on record, and no node has it"
        yield classes.GHOST_RECORD.of(vm, "", text)
    for node, report in held:
        if report.owner == "unknown":
            continue
        if report.owner != record.tenant:
            text = f"vm {vm} is {record.tenant}'s on record and {report.owner}'s on its node"
            yield classes.OWNER_WRONG.of(vm, node, text)
        elif not unreadable and _size(report) != _size_on_record(record):
            yield classes.SIZE_WRONG.of(vm, node, _sizes(record, report))


def _figures(record: AllocationReport) -> tuple[object, ...]:
    return (record.tenant, *_size_on_record(record))


def _size_on_record(record: AllocationReport) -> tuple[int, int, int]:
    return (record.memory_mib, record.vcpus, record.disk_gib)


def _size(report: VmReport) -> tuple[int, int, int]:
    disks = report.disk_gib + sum(disk.size_gib for disk in report.disks)
    return (report.memory_mib, report.vcpus, disks)


def _sizes(record: AllocationReport, report: VmReport) -> str:
    names = ("MiB of memory", "vCPUs", "GiB of disk")
    pairs = zip(names, _size_on_record(record), _size(report), strict=True)
    parts = [
        f"{actual} {name} and {counted} on record"
        for name, counted, actual in pairs
        if counted != actual
    ]
    return f"vm {record.vm} has {', '.join(parts)}"
