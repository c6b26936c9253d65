"""A controller's figures as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ppn.fleet.registry import Registry
from ppn.fleet.reports import fleet_report, node_reports, pool_alerts


class PoolCollector(Collector):
    """The pool as the controller sees it when it is asked.

    Args:
        registry: what it knows.
        controller: the node it runs on.
        clock: seconds that never jump.
    """

    def __init__(self, registry: Registry, controller: str, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._controller = controller
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Every gauge, with its value now."""
        now = self._clock()
        report = fleet_report(self._registry, self._controller, now)
        for name, text in (
            ("nodes", "Hypervisors of the inventory."),
            ("live", "Hypervisors heard lately."),
            ("vms", "VMs in the pool."),
            ("vcpus", "CPUs that VMs may have, on live nodes."),
            ("free_vcpus", "Of these, not yet given to VMs."),
            ("memory_mib", "Memory in MiB that VMs may have, on live nodes."),
            ("free_memory_mib", "Of this, not yet given to VMs."),
            ("alerts", "Things that are not as they should be."),
        ):
            yield GaugeMetricFamily(f"ppn_fleet_{name}", text, value=getattr(report, name))
        age = GaugeMetricFamily(
            "ppn_fleet_heartbeat_age_seconds", "Since a node's last heartbeat.", labels=["node"]
        )
        for node in node_reports(self._registry, now):
            age.add_metric([node.name], node.age_seconds or 0.0)
        yield age
        pool = GaugeMetricFamily(
            "ppn_fleet_pool_alert", "What no single node can see.", labels=["code", "subject"]
        )
        for alert in pool_alerts(self._registry, now):
            pool.add_metric([alert.code, alert.subject], 1)
        yield pool


class Counts:
    """What a controller counts as it works.

    Args:
        registry: where the figures are read.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.heartbeats = Counter(
            "ppn_fleet_heartbeats", "Heartbeats by outcome.", ["outcome"], registry=registry
        )
        self.orders = Counter(
            "ppn_fleet_orders", "Orders of VMs by outcome.", ["outcome"], registry=registry
        )
        self.order_seconds = Histogram(
            "ppn_fleet_order_seconds",
            "From an order to a VM that runs.",
            buckets=(0.25, 0.5, 1, 2, 5, 10, 30, 60, 120),
            registry=registry,
        )
