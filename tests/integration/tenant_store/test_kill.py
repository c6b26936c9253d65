"""Proxies that are killed in the midst of anything, with a fleet that goes on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from ppn.tenant.model import Amount
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.sweeper import Sweeper
from tests.integration.proxy.parts import wait_for
from tests.integration.tenant_store.programs import next_line, say, started
from tests.integration.tenant_store.worker import LEASE_SECONDS, TENANT, now
from tests.unit.tenant.samples import Trail

ROUNDS = int(os.environ.get("PPN_KILLS", "3"))
# Some more, longer each time, until one has had a VM removed: on a slow machine few live to do so.
MOST_ROUNDS = ROUNDS + 15
PROXIES = 3
CEILING = Amount(memory_mib=4096, vcpus=6, disk_gib=40, vms=5)
SECONDS = 60.0
MANY = 10**9


@pytest.mark.fault(
    "a tenant proxy killed at a random moment",
    "its requests are counted until the sweeper has asked every controller; the ceiling holds",
)
def test_the_ceiling_holds_and_every_vm_is_counted(url: str, store: Store) -> None:
    """TEN-08, TEN-09: after kill -9, used is what runs; it was never above the ceiling."""
    store.create_tenant(TENANT, CEILING, now=now())
    chance = random.Random(os.environ.get("PPN_SEED", "1"))
    with started("fleet", str(chance.randrange(MANY))) as server:
        fleet = next_line(server)
        with started("worker", url, fleet) as proxies:
            rounds, removed = 0, 0
            while rounds < ROUNDS or (not removed and rounds < MOST_ROUNDS):
                rounds += 1
                run_and_kill(proxies, chance, 0.3 * max(1, rounds - ROUNDS))
                assert store.tenant(TENANT).used.fits(CEILING)
                wait_until_over(store, fleet)
                sweep(store, fleet)
                state = state_of(fleet)
                assert Amount(**state["total"]) == store.tenant(TENANT).used
                assert Amount(**state["peak"]).fits(CEILING)
                removed = state["removed"]
    assert removed > 0


def run_and_kill(proxies: subprocess.Popen[str], chance: random.Random, seconds: float) -> None:
    """A few proxies that work, each killed at a moment of its own, so long after the one before."""
    for _ in range(PROXIES):
        say(proxies, str(chance.randrange(MANY)))
    numbers = [int(next_line(proxies)) for _ in range(PROXIES)]
    for number in numbers:
        time.sleep(chance.uniform(0, seconds))
        os.kill(number, signal.SIGKILL)


def state_of(fleet: str) -> dict[str, Any]:
    """What the fleet has and had, and how many may still ask it for something."""
    state: dict[str, Any] = httpx.get(f"{fleet}/v1/state", timeout=SECONDS).json()
    return state


def wait_until_over(store: Store, fleet: str) -> None:
    """Wait for what the killed ones had sent off: to the store, which locks its tenant, and on."""
    store.set_ceiling(TENANT, asdict(CEILING))
    wait_for(lambda: state_of(fleet)["connections"] == 1, "the last requests", SECONDS)


def sweep(store: Store, fleet: str) -> None:
    """Look until nothing is open, at a time when every lease has ended."""
    end = time.monotonic() + SECONDS

    def later() -> datetime:
        return now() + timedelta(seconds=LEASE_SECONDS)

    sweeper = Sweeper(store, [fleet], None, later, Records(Trail()))
    while asyncio.run(sweeper.sweep()) > 0:
        assert time.monotonic() < end, store.allocations()
        time.sleep(0.05)
    assert all(one.state == "settled" and one.pending is None for one in store.allocations())
