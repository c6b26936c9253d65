"""A tenant proxy's figures as Prometheus reads them; no tenant is named in them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ppn.tenant.records import Records


class Counts:
    """What a proxy counts as it works.

    Args:
        registry: where the figures are read.
        records: its audit log.
    """

    def __init__(self, registry: CollectorRegistry, records: Records) -> None:
        self.requests = Counter(
            "ppn_tenant_requests",
            "Requests by operation and outcome: done, or the code of the refusal or failure.",
            ["operation", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "ppn_tenant_request_seconds",
            "From a request that was let in to its answer.",
            ["operation"],
            buckets=(0.01, 0.05, 0.25, 1, 5, 10, 30, 60, 150),
            registry=registry,
        )
        owed = Gauge(
            "ppn_tenant_audit_owed",
            "Outcomes that the audit log could not take yet.",
            registry=registry,
        )
        owed.set_function(lambda: len(records.owed))
