"""Pools whose parts agree, for the tests of reconciliation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ppn.fleet.reconciliation.model import ControllerLook, Key, NodeLook, StoreLook, Views
from ppn.fleet.reconciliation.policy import findings
from ppn.wire.fleet import NodeReport, PlacedVm
from ppn.wire.heartbeat import Alert, VmReport
from ppn.wire.tenant import AllocationReport
from tests.unit.fleet.builders import report

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LONG_AGO = (NOW - timedelta(days=3)).isoformat()
JUST_NOW = (NOW - timedelta(minutes=1)).isoformat()


def record(vm: VmReport, **fields: Any) -> AllocationReport:
    """The allocation that fits a VM."""
    usual: dict[str, Any] = {
        "vm": vm.id,
        "tenant": vm.owner,
        "memory_mib": vm.memory_mib,
        "vcpus": vm.vcpus,
        "disk_gib": vm.disk_gib + sum(disk.size_gib for disk in vm.disks),
        "state": "settled",
        "since": LONG_AGO,
    }
    return AllocationReport(**(usual | fields))


def node_report(name: str, *alerts: Alert, stale: bool = False, age: float = 3.0) -> NodeReport:
    """A node as a controller that hears it sees it."""
    return NodeReport(
        name=name,
        age_seconds=age,
        stale=stale,
        reserved=False,
        kvm=False,
        kvm_reason="test",
        vms=0,
        vcpus=16,
        free_vcpus=16,
        memory_mib=1024,
        free_memory_mib=1024,
        free_disk_mib=1024,
        alerts=alerts,
    )


def alert(code: str, subject: str = "web") -> Alert:
    """Something that an agent or a controller says is wrong."""
    return Alert(code=code, subject=subject, message=f"{subject}: {code}", hint="mend it")


def agreeing(vms: dict[str, tuple[VmReport, ...]], controllers: int = 2, stores: int = 1) -> Views:
    """Views that agree: every controller and tenant store knows just what the nodes have."""
    placed = tuple(PlacedVm(node=name, vm=vm) for name, held in vms.items() for vm in held)
    tenants = tuple(record(vm) for held in vms.values() for vm in held if vm.owner != "operator")
    return Views(
        at=NOW,
        known=tuple(vms),
        nodes=tuple(NodeLook(name, held) for name, held in vms.items()),
        controllers=tuple(
            ControllerLook(
                name=f"http://10.8.0.{number}:9203",
                placed=placed,
                nodes=tuple(node_report(name) for name in vms),
            )
            for number in range(1, controllers + 1)
        ),
        stores=tuple(
            StoreLook(f"https://10.8.0.{number}:9221", tenants) for number in range(1, stores + 1)
        ),
    )


WEB = report("vm-web", owner="acme")
OWN = report("own", owner="operator")
POOL = agreeing({"server": (WEB, OWN), "laptop": ()})


def keys(views: Views) -> set[Key]:
    """What the findings are about."""
    return {one.key for one in findings(views)}


def on_node(views: Views, name: str, **fields: Any) -> Views:
    """The views with one node's look changed."""
    nodes = [replace(one, **fields) if one.name == name else one for one in views.nodes]
    return replace(views, nodes=tuple(nodes))


def by_controller(views: Views, number: int, **fields: Any) -> Views:
    """The views with one controller's look changed."""
    looks = list(views.controllers)
    looks[number] = replace(looks[number], **fields)
    return replace(views, controllers=tuple(looks))


def in_store(views: Views, number: int, *allocations: AllocationReport) -> Views:
    """The views with one tenant store's records replaced."""
    looks = list(views.stores)
    looks[number] = replace(looks[number], allocations=allocations)
    return replace(views, stores=tuple(looks))
