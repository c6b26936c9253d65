"""Which VM is where, and which VMs are on their way and therefore not judged."""

from __future__ import annotations

from datetime import datetime, timedelta

from ppn.fleet.reconciliation.model import Views
from ppn.wire.heartbeat import VmReport
from ppn.wire.tenant import AllocationReport

# The sweepers of the tenant proxies decide what is open far sooner.
LATE = timedelta(hours=1)
# States of a VM that is being made or is on its way from one node to another.
ON_THE_WAY: frozenset[str] = frozenset({"creating", "moving", "moved", "arriving"})


def is_late(record: AllocationReport, at: datetime) -> bool:
    """Whether a record has been waiting for a decision for too long.

    Args:
        record: of a VM that is reserved, changed or removed.
        at: the time.
    """
    return at - datetime.fromisoformat(record.since) > LATE


def places(views: Views) -> dict[str, list[tuple[str, VmReport]]]:
    """Where each VM is, as the nodes themselves say: node and report, by id."""
    found: dict[str, list[tuple[str, VmReport]]] = {}
    for node in views.nodes:
        for vm in node.vms:
            found.setdefault(vm.id, []).append((node.name, vm))
    return found


def in_flight(views: Views) -> frozenset[str]:
    """VMs that are being made, changed, moved or removed at this moment."""
    going = {vm for node in views.nodes for vm in node.going}
    intended = {one.id for controller in views.controllers for one in controller.intents}
    moving = {vm.id for node in views.nodes for vm in node.vms if vm.state in ON_THE_WAY}
    changing = {
        one.vm
        for store in views.stores
        for one in store.allocations
        if one.changing and not is_late(one, views.at)
    }
    return frozenset(going | intended | moving | changing)
