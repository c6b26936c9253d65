"""The sweeper with fleet controllers that answer over real HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from urllib.parse import urlsplit

import pytest

from ppn.audit.entry import Entry
from ppn.audit.log import AuditUnavailable
from ppn.tenant.database import StoreUnavailable
from ppn.tenant.model import NOTHING, Amount, Tenant
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.sweeper import AT_ONCE, Sweeper
from tests.integration.tenant_store.fleet import Fleet, Server, unknown
from tests.unit.tenant.samples import (
    LARGE,
    LATER,
    LEASE_SECONDS,
    NOW,
    ROOM_FOR_5,
    SMALL,
    Trail,
)

ROOMY = Amount(1 << 20, 1 << 10, 1 << 20, 1 << 10)
NOWHERE = "http://127.0.0.1:9"


@contextmanager
def listening(fleet: Fleet) -> Iterator[str]:
    """The URL of a controller for as long as the block lasts."""
    with Server(fleet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def fleets() -> tuple[Fleet, Fleet]:
    """What two controllers of one pool say."""
    return Fleet(), Fleet()


@pytest.fixture
def urls(fleets: tuple[Fleet, Fleet]) -> Iterator[list[str]]:
    """Where they are."""
    with ExitStack() as both:
        yield [both.enter_context(listening(fleet)) for fleet in fleets]


@pytest.fixture
def acme(store: Store) -> Tenant:
    """A tenant with one reservation whose request has vanished."""
    store.create_tenant("acme", ROOM_FOR_5, now=NOW)
    store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    return store.tenant("acme")


def sweeper_of(store: Store, *urls: str, trail: Trail | None = None) -> Sweeper:
    """A sweeper for which every lease has ended."""
    return Sweeper(store, urls, None, lambda: LATER, Records(trail or Trail()))


def swept(store: Store, *urls: str) -> int:
    """Look once; how much is open still."""
    return asyncio.run(sweeper_of(store, *urls).sweep())


def waiting(listener: socket.socket) -> int:
    """How many connections nobody has taken yet."""
    listener.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def told(trail: Trail) -> list[tuple[str, str, str, int | None]]:
    """What the audit log says of a sweep."""
    return [(one.operation, one.outcome, one.code, one.of) for one in trail.entries]


def test_a_reservation_whose_vm_is_nowhere_is_freed(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-08: and every controller is asked what it makes before any is asked what it has."""
    assert swept(store, *urls) == 0
    assert store.tenant("acme").used == NOTHING
    for fleet in fleets:
        assert fleet.asked == [("GET", "/v1/intents/vm-a"), ("GET", "/v1/vms/vm-a")]


def test_a_reservation_whose_vm_runs_is_settled(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    fleets[1].put("vm-a", "acme", SMALL)
    assert swept(store, *urls) == 0
    assert store.allocation("acme", "vm-a").state == "settled"


@pytest.mark.fault(
    "a fleet controller that is silent while a reservation is open",
    "what it may be making stays counted until it answers",
)
def test_nothing_is_freed_while_a_controller_is_silent(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-08: dead, warming up, nodes silent, or making it: the reservation stays."""
    assert swept(store, urls[0], NOWHERE) == 1
    fleets[1].silent.add("vms")
    assert swept(store, *urls) == 1
    fleets[1].silent = {"intents"}
    assert swept(store, *urls) == 1
    fleets[1].silent.clear()
    fleets[1].making["vm-a"] = "going"
    assert swept(store, *urls) == 1
    assert store.tenant("acme").used == SMALL
    fleets[1].making["vm-a"] = "told"
    assert swept(store, *urls) == 0


def test_a_removal_is_finished(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """The VM is asked away, and is counted until no controller finds it any more."""
    store.settle("vm-a", now=NOW)
    store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    fleets[1].put("vm-a", "acme", SMALL)
    assert swept(store, *urls) == 1
    assert fleets[1].vms == {}
    assert store.tenant("acme").used == SMALL
    assert swept(store, *urls) == 0
    assert store.allocations() == ()


def test_a_vm_that_was_ordered_again_meanwhile_is_not_removed(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """Another proxy ended the removal while this sweeper was looking."""
    store.settle("vm-a", now=NOW)
    begun = store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    fleets[1].put("vm-a", "acme", SMALL)

    def order_again() -> None:
        store.end_removal(begun, gone=True, now=LATER)
        store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=LATER)

    fleets[0].before_answer = order_again
    assert swept(store, *urls) == 1
    assert "vm-a" in fleets[1].vms


def test_a_removal_that_comes_late_spares_what_was_made_since(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-08: the customer's own request ended the removal while the sweeper's was on its way."""
    store.settle("vm-a", now=NOW)
    begun = store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    fleets[0].put("vm-a", "acme", SMALL)
    before = fleets[0].vms["vm-a"]["uuid"]

    def order_again() -> None:
        store.end_removal(begun, gone=True, now=LATER)
        store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=LATER)
        fleets[0].put("vm-a", "acme", SMALL)

    fleets[0].before_removal = order_again
    assert swept(store, *urls) == 1
    assert ("DELETE", f"/v1/vms/vm-a?uuid={before}") in fleets[0].asked
    assert fleets[0].vms["vm-a"]["uuid"] != before
    assert store.allocation("acme", "vm-a").state == "reserved"


def test_what_no_controller_can_name_is_not_removed(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-08: what is only being made, or has no record, is removed once it can be told apart."""
    store.settle("vm-a", now=NOW)
    store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    fleets[0].put("vm-a", "acme", SMALL)
    named = fleets[0].vms["vm-a"].pop("uuid")
    assert swept(store, *urls) == 1
    assert "DELETE" not in {method for method, _ in fleets[0].asked}
    fleets[0].vms["vm-a"]["uuid"] = named
    assert swept(store, *urls) == 1
    assert fleets[0].vms == {}


def test_a_change_ends_as_the_vm_is(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    store.settle("vm-a", now=NOW)
    for now_takes in (SMALL, LARGE):
        store.begin_change("vm-a", LARGE, lease_seconds=0, now=LATER)
        fleets[0].put("vm-a", "acme", now_takes)
        assert swept(store, *urls) == 0
        assert store.tenant("acme").used == now_takes


def test_an_answer_that_is_none_is_no_answer(store: Store, acme: Tenant) -> None:
    class Odd(Fleet):
        def answer(self, *_: object) -> tuple[int, dict[str, object]]:
            return 200, {"vm": {"id": "vm-a", "state": "made of cheese"}}

    with listening(Odd()) as url:
        assert swept(store, url) == 1
    assert store.allocation("acme", "vm-a").state == "reserved"


def test_it_goes_on_when_the_store_is_away_for_a_while(
    store: Store, acme: Tenant, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop outlives errors; what is open ends at a later look."""
    real, calls = store.expired, 0

    def expired(now: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("away")
        return real(LATER)

    monkeypatch.setattr(store, "expired", expired)
    sweeper = sweeper_of(store, *urls)

    async def until_swept() -> None:
        running = asyncio.create_task(sweeper.run(0.01))
        while store.allocations():
            await asyncio.sleep(0.01)
        running.cancel()
        # Cancelled once more by the loop's end, it could not close its connections.
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(until_swept(), 60))
    assert calls >= 2


def test_what_the_sweeper_does_is_in_the_audit_log(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-10: each end that it finds, by an intent and an outcome that belongs to it."""
    for put, what in ((True, "sweep_settle"), (False, "sweep_forget")):
        trail = Trail()
        vm = what.replace("_", "-")
        store.reserve("acme", vm, SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
        store.release("vm-a")
        if put:
            fleets[0].put(vm, "acme", SMALL)
        assert asyncio.run(sweeper_of(store, *urls, trail=trail).sweep()) == 0
        assert told(trail) == [(what, "allowed", "", None), (what, "done", "", 0)]
        assert {(one.tenant, one.vm) for one in trail.entries} == {("acme", vm)}
    trail = Trail()
    store.begin_change("sweep-settle", LARGE, lease_seconds=0, now=LATER)
    assert asyncio.run(sweeper_of(store, *urls, trail=trail).sweep()) == 0
    assert [one.operation for one in trail.entries] == ["sweep_resize"] * 2


def test_a_removal_by_the_sweeper_is_one_intent_and_one_outcome(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-10: the intent before the pool is asked, however often that takes."""
    store.settle("vm-a", now=NOW)
    store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    fleets[1].put("vm-a", "acme", SMALL)
    trail = Trail()
    sweeper = sweeper_of(store, *urls, trail=trail)
    fleets[1].making["vm-a"] = "going"
    for _ in range(3):
        assert asyncio.run(sweeper.sweep()) == 1
    assert told(trail) == [("sweep_remove", "allowed", "", None)] and fleets[1].vms
    fleets[1].making.clear()
    assert asyncio.run(sweeper.sweep()) == 1
    assert asyncio.run(sweeper.sweep()) == 0
    assert told(trail)[1:] == [("sweep_remove", "done", "", 0)]
    assert store.allocations() == () and sweeper.removals == {}


def test_a_removal_that_somebody_else_ends_is_ended_in_the_log(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-10: by another proxy, or by its customer who asked again."""
    store.settle("vm-a", now=NOW)
    begun = store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    trail = Trail()
    sweeper = sweeper_of(store, *urls, trail=trail)
    fleets[0].put("vm-a", "acme", SMALL)
    fleets[0].making["vm-a"] = "going"
    assert asyncio.run(sweeper.sweep()) == 1
    store.end_removal(begun, gone=True, now=LATER)
    assert asyncio.run(sweeper.sweep()) == 0
    assert told(trail)[1:] == [("sweep_remove", "failed", "ended_elsewhere", 0)]


def test_without_the_audit_log_the_sweeper_does_nothing(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-10: neither to the pool nor to the store."""

    class Gone(Trail):
        def submit(self, entry: Entry) -> Future[int]:
            raise AuditUnavailable("full", hint="")

    store.reserve("acme", "vm-b", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    store.settle("vm-a", now=NOW)
    store.begin_removal("vm-a", lease_seconds=0, now=LATER)
    fleets[0].put("vm-a", "acme", SMALL)
    before = store.allocations()
    assert asyncio.run(sweeper_of(store, *urls, trail=Gone()).sweep()) == 2
    assert store.allocations() == before and fleets[0].vms
    assert "DELETE" not in {method for method, _ in fleets[0].asked}


@pytest.mark.fault(
    "a fleet controller that takes connections and says nothing, with much open in the store",
    "the sweeper waits for it once in each sweep, and for removals a few at a time",
)
def test_a_silent_controller_is_waited_for_once(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-08: what can be ended at others is not kept waiting."""
    store.set_ceiling("acme", asdict(ROOMY))
    for number in range(100):
        store.reserve("acme", f"vm-{number}", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    fleets[0].put("vm-7", "acme", SMALL)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as mute:
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}"
        sweep = sweeper_of(store, urls[0], silent).sweep()
        left = asyncio.run(asyncio.wait_for(sweep, timeout=60))
        assert 0 < waiting(mute) <= AT_ONCE
    assert left == 100
    assert store.allocation("acme", "vm-7").state == "settled"


@pytest.mark.parametrize("path", ["intents", "vms"])
def test_an_answer_without_an_end_is_no_answer(store: Store, acme: Tenant, path: str) -> None:
    """TEN-08: neither in time nor in memory."""

    class Endless(Fleet):
        def answer(self, method: str, at: str, *_: object) -> tuple[int, dict[str, object]]:
            return (200, {"x": "x" * 2_000_000}) if path in at else unknown()

    with listening(Endless()) as url:
        assert swept(store, url) == 1
    assert store.allocation("acme", "vm-a").state == "reserved"


def test_removals_take_turns(
    store: Store, acme: Tenant, urls: list[str], fleets: tuple[Fleet, Fleet]
) -> None:
    """TEN-08: those that take long keep none of the others from being tried."""
    store.set_ceiling("acme", asdict(ROOMY))
    vms = [f"vm-{number}" for number in range(AT_ONCE + 3)]
    for vm in vms:
        store.reserve("acme", vm, SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
        store.settle(vm, now=NOW)
        store.begin_removal(vm, lease_seconds=0, now=LATER)
        fleets[0].put(vm, "acme", SMALL)
        fleets[0].making[vm] = "going"
    sweeper = sweeper_of(store, urls[0])
    for count in (AT_ONCE, 2 * AT_ONCE):
        asyncio.run(sweeper.sweep())
        asked = [path for method, path in fleets[0].asked if method == "DELETE"]
        assert len(asked) == count
    assert {urlsplit(path).path.rpartition("/")[2] for path in asked} == set(vms)
