"""A tenant proxy's parts put together."""

from __future__ import annotations

import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from ppn.tenant.changes import Changes
from ppn.tenant.fleet import Fleet
from ppn.tenant.guard import Guard
from ppn.tenant.limits import Lanes, Rates
from ppn.tenant.metrics import Counts
from ppn.tenant.records import Appends, Records
from ppn.tenant.settings import TenantSettings
from ppn.tenant.sources import Sources
from ppn.tenant.store import Store
from ppn.tenant.threads import Threads
from ppn.wire.bodies import Bodies

# Longer orders than this nobody has: user data is the longest part of one.
MAX_BODY_BYTES = 1024 * 1024
# Parsed, a body takes many times its length; the unit has 1 GiB.
BODIES_OF_ONE = 4 * MAX_BODY_BYTES
BODIES_OF_ALL = 16 * MAX_BODY_BYTES


@dataclass(frozen=True)
class Service:
    """Everything one tenant proxy works with.

    Args:
        settings: from the inventory.
        store: tenants, tokens, allocations.
        threads: the store's calls, away from the loop.
        records: the audit log.
        fleet: the controllers.
        changes: carries out what tenants ask for.
        guard: in front of every route.
        collectors: what Prometheus reads.
    """

    settings: TenantSettings
    store: Store
    threads: Threads
    records: Records
    fleet: Fleet
    changes: Changes
    guard: Guard
    collectors: CollectorRegistry

    async def close(self) -> None:
        """Close what was opened here."""
        await self.fleet.close()
        self.threads.close()


def assemble(settings: TenantSettings, store: Store, audit: Appends) -> Service:
    """A tenant proxy from its settings and its edges.

    Args:
        settings: from the inventory.
        store: open.
        audit: open.
    """
    clock = time.monotonic
    limits = settings.limits
    threads = Threads()
    records = Records(audit)
    fleet = Fleet(settings.address, settings.fleet, clock)
    collectors = CollectorRegistry()
    changes = Changes(
        store=store,
        threads=threads,
        gates=Lanes(at_once=1),
        records=records,
        fleet=fleet,
        seconds=settings.request_seconds,
        lease_seconds=settings.lease_seconds,
    )
    guard = Guard(
        store=store,
        threads=threads,
        records=records,
        counts=Counts(collectors, records),
        sources=Rates(limits.source_rate, int(2 * limits.source_rate), clock),
        tenants=Rates(limits.rate, limits.burst, clock),
        changes=Lanes(limits.changes, limits.waiting, limits.wait_seconds),
        questions=Lanes(limits.questions, limits.waiting, limits.wait_seconds),
        known=Sources(
            nodes=frozenset(str(one) for one in settings.nodes),
            peers={str(one.address): one.tenant for one in settings.peers},
        ),
        bodies=Bodies(MAX_BODY_BYTES, BODIES_OF_ONE, BODIES_OF_ALL),
    )
    return Service(settings, store, threads, records, fleet, changes, guard, collectors)
