"""What a change tells the store and the audit log, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from ppn.audit.entry import Entry
from ppn.host.spec import Disk
from ppn.tenant.changes import Changes
from ppn.tenant.fleet import Call, Fleet
from ppn.tenant.guard import Visit
from ppn.tenant.limits import Lanes
from ppn.tenant.model import Amount
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.threads import Threads
from ppn.wire.fleet import ResizeOrder

VM = "vm-a"
NOW = datetime.now(UTC)
ONE = Amount(memory_mib=256, vcpus=2, disk_gib=1, vms=1)
ROOMY = Amount(memory_mib=4096, vcpus=16, disk_gib=100, vms=9)


@dataclass
class Trail:
    """An audit log that notes what the store has of the VM when an entry comes.

    Args:
        store: that is looked at.
        noted: outcome of each entry, and the VM's state then.
    """

    store: Store
    noted: list[tuple[str, str]] = field(default_factory=list)

    def submit(self, entry: Entry) -> Future[int]:
        """Take an entry."""
        self.noted.append((entry.outcome, self.store.allocation(None, VM).state))
        made: Future[int] = Future()
        made.set_result(len(self.noted) - 1)
        return made


@dataclass
class Pool:
    """A pool that has one VM, and answers changes as the agents do: a repeated one is done.

    Args:
        disks: data disks of the VM; by name, in GiB.
        late: disks that a controller still lists.
    """

    disks: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)

    async def ask(self, call: Call) -> Any:
        """Answer a controller's part."""
        if call.method == "POST" and call.body is not None:
            self.disks[call.body["name"]] = call.body["size_gib"]
        listed = self.late | self.disks if call.method == "GET" else self.disks
        vm = {
            "id": VM,
            "owner": "acme",
            "state": "running",
            "vcpus": 2,
            "memory_mib": 256,
            "minimum_mib": 128,
            "weight": 300,
            "disk_gib": 1,
            "disks": [{"name": name, "size_gib": size} for name, size in listed.items()],
        }
        return {"node": "a", "vm": vm}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with one tenant that has one VM."""
    with Store.open(f"sqlite:///{tmp_path}/tenants.db", upgrade=True) as opened:
        opened.create_tenant("acme", ROOMY, now=NOW)
        opened.reserve("acme", VM, ONE, lease_seconds=60, now=NOW)
        opened.settle(VM, now=NOW)
        yield opened


def visit_to(store: Store) -> Visit:
    """A request about the VM, as the guard lets it in."""
    found = store.allocation("acme", VM)
    return Visit("test", "10.8.0.9", "correlation-1", vm=VM, allocation=found)


def carry_out(store: Store, trail: Trail, pool: Pool, what: str, *args: Any) -> None:
    """Make a change."""
    threads = Threads()
    changes = Changes(
        store=store,
        threads=threads,
        gates=Lanes(at_once=1),
        records=Records(trail),
        fleet=cast(Fleet, pool),
        seconds=10,
        lease_seconds=60,
    )
    change: Coroutine[Any, Any, Any] = getattr(changes, what)(visit_to(store), *args)
    try:
        asyncio.run(change)
    finally:
        threads.close()


def test_a_removal_is_written_down_before_the_store_has_it(store: Store) -> None:
    """TEN-10: the sweeper carries out what the store has; a crash between must leave nothing."""
    trail = Trail(store)
    carry_out(store, trail, Pool(), "destroy")
    assert trail.noted == [("allowed", "settled"), ("done", "removing")]
    assert store.tenant("acme").used.vms == 0


def test_a_disk_that_was_there_already_is_counted_once(store: Store) -> None:
    """TEN-08: an agent takes the same disk twice, as one; the ceiling does so, too."""
    trail, pool = Trail(store), Pool()
    for _ in range(2):
        carry_out(store, trail, pool, "attach", Disk(name="data", size_gib=5))
    assert store.tenant("acme").used.disk_gib == 6


def test_a_disk_that_was_gone_already_is_given_back_once(store: Store) -> None:
    """TEN-08: a controller may still list a disk that was taken a moment ago."""
    trail, pool = Trail(store), Pool(late={"old": 5})
    carry_out(store, trail, pool, "attach", Disk(name="data", size_gib=8))
    carry_out(store, trail, pool, "detach", "old")
    assert store.tenant("acme").used.disk_gib == 9


def test_a_lease_begins_when_it_is_written(store: Store) -> None:
    """TEN-08: not when its request began to wait, or it might end before the change."""
    threads, gates = Threads(), Lanes(at_once=1)
    changes = Changes(
        store=store,
        threads=threads,
        gates=gates,
        records=Records(Trail(store)),
        fleet=cast(Fleet, Pool()),
        seconds=10,
        lease_seconds=60,
    )

    async def story() -> datetime:
        async with gates.turn("acme"):
            resizing = asyncio.create_task(
                changes.resize(visit_to(store), ResizeOrder(memory_mib=512))
            )
            await asyncio.sleep(0.2)
            its_turn = datetime.now(UTC)
        await resizing
        return its_turn

    its_turn = asyncio.run(story())
    threads.close()
    until = store.allocation("acme", VM).until
    assert until is not None and until >= its_turn + timedelta(seconds=60)
