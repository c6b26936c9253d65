"""Values that tests of the tenant store share."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ppn.audit.entry import Entry
from ppn.tenant.model import Allocation, Amount, State

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LEASE_SECONDS = 60.0
LEASE = timedelta(seconds=LEASE_SECONDS)
LATER = NOW + LEASE
SMALL = Amount(memory_mib=1024, vcpus=2, disk_gib=10, vms=1)
LARGE = Amount(memory_mib=2048, vcpus=4, disk_gib=20, vms=1)
ROOM_FOR_5 = Amount(memory_mib=5 * 1024, vcpus=10, disk_gib=50, vms=5)


def allocation(
    state: State = "reserved", *, pending: Amount | None = None, holders: int = 1
) -> Allocation:
    """An allocation whose lease ends `LATER`."""
    return Allocation("vm-a", "acme", SMALL, state, NOW, pending, LATER, holders, "0" * 16)


@dataclass
class Trail:
    """An audit log in memory."""

    entries: list[Entry] = field(default_factory=list)

    def submit(self, entry: Entry) -> Future[int]:
        """Take an entry."""
        self.entries.append(entry)
        made: Future[int] = Future()
        made.set_result(len(self.entries) - 1)
        return made
