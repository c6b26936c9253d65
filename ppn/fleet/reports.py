"""What a controller says of nodes, VMs and the pool as a whole (FLEET-06)."""

from __future__ import annotations

from collections.abc import Iterator

from ppn.errors import PpnError, Refusal
from ppn.fleet.node import Held, Node
from ppn.fleet.registry import Registry
from ppn.wire.fleet import FleetReport, NodeReport, PlacedVm
from ppn.wire.heartbeat import Alert
from ppn.wire.problems import NodeRefusal


def node_reports(registry: Registry, now: float) -> tuple[NodeReport, ...]:
    """Every node that has been heard since the controller started, by name.

    Args:
        registry: what the controller knows.
        now: seconds of the registry's clock.
    """
    nodes = registry.nodes
    found = (node_report(registry, nodes[name], now) for name in sorted(nodes))
    return tuple(report for report in found if report is not None)


def node_report(registry: Registry, node: Node, now: float) -> NodeReport | None:
    """A node as the controller sees it; None before it was heard."""
    view = registry.view(node)
    if view is None or node.heartbeat is None or node.heard is None:
        return None
    return NodeReport(
        name=node.name,
        age_seconds=now - node.heard,
        stale=registry.is_stale(node, now),
        reserved=view.reserved,
        kvm=view.kvm,
        kvm_reason=node.heartbeat.kvm.reason,
        vms=len(node.held()),
        vcpus=view.vcpus,
        free_vcpus=max(view.free_vcpus, 0),
        memory_mib=view.memory_mib,
        free_memory_mib=max(view.free_memory_mib, 0),
        free_disk_mib=max(view.free_disk_mib, 0),
        alerts=node.heartbeat.alerts,
    )


def fleet_report(registry: Registry, controller: str, now: float) -> FleetReport:
    """The sums over all nodes; capacity counts nodes that are live alone.

    Args:
        registry: what the controller knows.
        controller: the node this controller runs on.
        now: seconds of the registry's clock.
    """
    reports = node_reports(registry, now)
    live = [report for report in reports if not report.stale]
    return FleetReport(
        controller=controller,
        nodes=len(registry.nodes),
        live=len(live),
        vms=sum(report.vms for report in reports),
        vcpus=sum(report.vcpus for report in live),
        free_vcpus=sum(report.free_vcpus for report in live),
        memory_mib=sum(report.memory_mib for report in live),
        free_memory_mib=sum(report.free_memory_mib for report in live),
        alerts=sum(len(report.alerts) for report in reports)
        + len(list(pool_alerts(registry, now))),
    )


def pool_alerts(registry: Registry, now: float) -> Iterator[Alert]:
    """What no single node can see: a node that is silent, a VM that several nodes have."""
    for name in sorted(registry.nodes):
        if registry.is_missed(registry.nodes[name], now):
            yield Alert(
                code="node_stale",
                subject=name,
                message=f"node {name} is not heard; nothing new is placed there",
                hint="see whether it is up and whether its agent reaches this controller",
            )
    for vm, names in registry.doubled().items():
        yield Alert(
            code="vm_doubled",
            subject=vm,
            message=f"vm {vm} is on {' and '.join(names)}",
            hint="decide which one to keep and destroy the other on its node",
        )


def placed_vm(held: Held) -> PlacedVm:
    """A VM and the node it is on, as it is answered."""
    return PlacedVm(node=held.node, stale=held.stale, vm=held.report)


def node_refusal(node: str, error: PpnError) -> NodeRefusal:
    """A node's own refusal, as one of the reasons why a VM could not be placed."""
    refusal = error if isinstance(error, Refusal) else None
    return NodeRefusal(
        node=node,
        code=error.code,
        message=error.message,
        constraint=refusal.constraint if refusal else "",
        wanted=refusal.wanted if refusal else None,
        free=refusal.free if refusal else None,
        unit=refusal.unit if refusal else "",
    )
