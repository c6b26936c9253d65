"""What a tenant proxy does with the store and the fleet, again and again, until it is killed.

`python -m tests.integration.tenant_store.worker URL FLEET` makes one such process for each seed
that it reads; each prints its number once it begins.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from ppn.errors import Refusal
from ppn.fleet.identity import vm_id
from ppn.log import configure_log
from ppn.tenant.model import Allocation, Amount
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.sweeper import Sweeper
from tests.unit.tenant.samples import Trail

TENANT = "acme"
KEYS = 12
# Much longer than a request may take, or than a busy machine stops a process.
LEASE_SECONDS = 60.0
REQUEST_SECONDS = 1.0
SIZES = [Amount(512 * n, n, 5 * n, 1) for n in (1, 2, 3)]


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


@dataclass
class Proxy:
    """Makes, changes and removes VMs of one tenant, as a tenant proxy would.

    Args:
        store: shared with the others.
        client: to the fleet.
        chance: decides what comes next.
    """

    store: Store
    client: httpx.Client
    chance: random.Random

    def step(self) -> None:
        """One request."""
        key = str(self.chance.randrange(KEYS))
        act = self.chance.choice([self.make, self.make, self.change, self.remove])
        try:
            act(key)
        except (Refusal, httpx.HTTPError):
            return  # refused, or nobody knows: then it stays open

    def make(self, key: str) -> None:
        """Have a VM made."""
        vm, amount = vm_id(TENANT, key), SIZES[int(key) % len(SIZES)]
        self.store.reserve(TENANT, vm, amount, lease_seconds=LEASE_SECONDS, now=now())
        figures = {"memory_mib": amount.memory_mib, "vcpus": amount.vcpus}
        answer = self.client.post(
            "/v1/vms",
            json={"owner": TENANT, "disk_gib": amount.disk_gib, **figures},
            headers={"Idempotency-Key": key},
        )
        if answer.is_success:
            self.store.settle(vm, now=now())
        elif answer.json()["code"] == "no_capacity":
            self.store.release(vm)

    def change(self, key: str) -> None:
        """Have a VM changed."""
        there = self.known(key)
        to = self.chance.choice(SIZES)
        to = Amount(to.memory_mib, to.vcpus, there.amount.disk_gib, 1)
        begun = self.store.begin_change(there.vm, to, lease_seconds=LEASE_SECONDS, now=now())
        body = {"memory_mib": to.memory_mib, "vcpus": to.vcpus}
        answer = self.client.patch(f"/v1/vms/{there.vm}", json=body)
        if answer.status_code != httpx.codes.NOT_FOUND:
            self.store.end_change(begun, to if answer.is_success else begun.amount, now=now())

    def remove(self, key: str) -> None:
        """Have a VM removed."""
        vm = self.known(key).vm
        begun = self.store.begin_removal(vm, lease_seconds=LEASE_SECONDS, now=now())
        answer = self.client.get(f"/v1/vms/{vm}")
        if answer.is_success:
            named = {"uuid": answer.json()["vm"]["uuid"]}
            answer = self.client.delete(f"/v1/vms/{vm}", params=named)
        gone = answer.is_success or answer.status_code == httpx.codes.NOT_FOUND
        self.store.end_removal(begun, gone=gone, now=now())

    def known(self, key: str) -> Allocation:
        """What the guard finds."""
        return self.store.allocation(TENANT, vm_id(TENANT, key))


def work(url: str, fleet: str, seed: int, parent: int) -> None:
    """Go on for as long as the parent lives."""
    chance = random.Random(seed)
    with Store.open(url) as store, httpx.Client(base_url=fleet, timeout=REQUEST_SECONDS) as client:
        proxy = Proxy(store, client, chance)
        sweeper = Sweeper(store, [fleet], None, now, Records(Trail()))
        # In one piece: others write into the same pipe.
        os.write(1, f"{os.getpid()}\n".encode())
        while os.getppid() == parent:
            proxy.step()
            if chance.random() < 0.05:
                asyncio.run(sweeper.sweep())


def main(url: str, fleet: str) -> None:
    """Make processes; what they import is imported once."""
    configure_log()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getpid()
    for seed in sys.stdin:
        if os.fork() == 0:
            work(url, fleet, int(seed), parent)
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
