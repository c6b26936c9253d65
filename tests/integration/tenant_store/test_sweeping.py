"""The sweeper with fleet controllers that answer over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ppn.tenant.database import StoreUnavailable
from ppn.tenant.model import NOTHING, Tenant
from ppn.tenant.store import Store
from ppn.tenant.sweeper import Sweeper
from tests.integration.tenant_store.fleet import Fleet, Server
from tests.unit.tenant.samples import LARGE, LATER, LEASE_SECONDS, NOW, ROOM_FOR_5, SMALL

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


def swept(store: Store, *urls: str) -> int:
    """Look once, when every lease has ended; how much is open still."""
    return asyncio.run(Sweeper(store, urls, None, lambda: LATER).sweep())


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
    sweeper = Sweeper(store, urls, None, lambda: LATER)

    async def until_swept() -> None:
        running = asyncio.create_task(sweeper.run(0.01))
        while store.allocations():
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(until_swept(), 30))
    assert calls >= 2
