"""Proxies that are killed in the midst of anything, with a fleet that goes on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time

import httpx
import pytest

from ppn.tenant.model import Amount
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.sweeper import Sweeper
from tests.integration.tenant_store.programs import next_line, say, started
from tests.integration.tenant_store.worker import LEASE_SECONDS, TENANT, now
from tests.unit.tenant.samples import Trail

ROUNDS = int(os.environ.get("PPN_KILLS", "3"))
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
            for _ in range(ROUNDS):
                run_and_kill(proxies, chance)
                assert store.tenant(TENANT).used.fits(CEILING)
                sweep(store, fleet)
                state = httpx.get(f"{fleet}/v1/state", timeout=SECONDS).json()
                assert Amount(**state["total"]) == store.tenant(TENANT).used
                assert Amount(**state["peak"]).fits(CEILING)
    assert state["peak"]["vms"] > 0


def run_and_kill(proxies: subprocess.Popen[str], chance: random.Random) -> None:
    """A few proxies that work, each killed at a moment of its own."""
    for _ in range(PROXIES):
        say(proxies, str(chance.randrange(MANY)))
    numbers = [int(next_line(proxies)) for _ in range(PROXIES)]
    for number in numbers:
        time.sleep(chance.uniform(0, 0.3))
        os.kill(number, signal.SIGKILL)


def sweep(store: Store, fleet: str) -> None:
    """Wait for the leases to end, and look until nothing is open."""
    time.sleep(LEASE_SECONDS)
    end = time.monotonic() + SECONDS
    sweeper = Sweeper(store, [fleet], None, now, Records(Trail()))
    while asyncio.run(sweeper.sweep()) > 0:
        assert time.monotonic() < end, store.allocations()
        time.sleep(0.05)
    assert all(one.state == "settled" and one.pending is None for one in store.allocations())
