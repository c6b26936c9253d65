"""A log's figures as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ppn.audit.log import Status


class LogCollector(Collector):
    """A log as it is when it is asked: how far it is, and how far its witnesses are.

    Args:
        status: `Log.status`.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Every gauge, with its value now."""
        now = self._status()
        yield GaugeMetricFamily("ppn_audit_entries", "Durable entries.", value=now.size)
        yield GaugeMetricFamily(
            "ppn_audit_published", "Entries that the published checkpoint covers.", now.published
        )
        yield GaugeMetricFamily(
            "ppn_audit_trouble",
            "1 while the log cannot be published: what is appended since, no witness is told of.",
            value=1 if now.trouble else 0,
        )
        yield GaugeMetricFamily(
            "ppn_audit_free_bytes",
            "Room on the log's disk; without any, every change is refused.",
            value=now.free_bytes,
        )
        signed = GaugeMetricFamily(
            "ppn_audit_witnessed", "Entries that a witness has signed.", labels=["witness"]
        )
        trouble = GaugeMetricFamily(
            "ppn_audit_witness_trouble", "A witness that does not sign.", labels=["witness", "code"]
        )
        for one in now.witnesses:
            signed.add_metric([one.witness], one.size)
            if one.code:
                trouble.add_metric([one.witness, one.code], 1)
        yield signed
        yield trouble
