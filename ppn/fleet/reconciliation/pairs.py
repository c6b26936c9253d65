"""Which VM is where, and which VMs are on their way and therefore not judged."""

from __future__ import annotations

from datetime import datetime, timedelta

from ppn.fleet.reconciliation.model import Views
from ppn.wire.heartbeat import IN_TRANSIT, VmReport
from ppn.wire.tenant import AllocationReport

# The sweepers of the tenant proxies decide what is open far sooner.
LATE = timedelta(hours=1)


def is_late(record: AllocationReport, at: datetime) -> bool:
    """Whether a record has been waiting for a decision for too long.

    Args:
        record: of a VM that is reserved, changed or removed.
        at: the time.
    """
    # One that began in hours to come began under a clock that was ahead.
    return abs(at - datetime.fromisoformat(record.since)) > LATE


def places(views: Views) -> dict[str, list[tuple[str, VmReport]]]:
    """Where each VM is, as the nodes themselves say: node and report, by id."""
    found: dict[str, list[tuple[str, VmReport]]] = {}
    for node in views.nodes:
        for vm in node.vms:
            found.setdefault(vm.id, []).append((node.name, vm))
    return found


def on_the_way(views: Views) -> frozenset[str]:
    """VMs that are between two nodes, as the nodes themselves say."""
    found = (vm.id for node in views.nodes for vm in node.vms if vm.state in IN_TRANSIT)
    return frozenset(found)


def in_flight(views: Views) -> frozenset[str]:
    """VMs that are being made, changed, moved or removed at this moment."""
    going = {vm for node in views.nodes for vm in node.going}
    intended = {one.id for controller in views.controllers for one in controller.intents}
    making = {vm.id for node in views.nodes for vm in node.vms if vm.state == "creating"}
    changing = {
        one.vm
        for store in views.stores
        for one in store.allocations
        if one.changing and not is_late(one, views.at)
    }
    return frozenset(going | intended | making | on_the_way(views) | changing)
