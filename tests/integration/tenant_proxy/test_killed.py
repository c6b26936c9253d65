"""kill -9 of the proxy at any moment, before real controllers and node proxies."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from ppn.audit.read import unended
from ppn.tenant.model import Allocation, Amount
from ppn.tenant.store import Store
from tests.integration.fleet.node import Node
from tests.integration.fleet.parts import Pool, pool
from tests.integration.proxy.parts import Authority, wait_for
from tests.integration.tenant_proxy.parts import ORDER, TenantProxy, provision

# Each is a kill and a start of about two seconds; all hundred were run by hand.
ROUNDS = int(os.environ.get("PPN_TENANT_KILLS", "4"))
# Some more until one of them has hit a change: on a quick machine each may end first.
MOST_ROUNDS = ROUNDS + 40
CEILING = Amount(memory_mib=1024, vcpus=1 << 10, disk_gib=1 << 10, vms=1 << 10)
FEW = Amount(memory_mib=1 << 20, vcpus=1 << 10, disk_gib=1 << 10, vms=3)


class Customer(threading.Thread):
    """Orders, removes and resizes VMs without end, whatever it is answered.

    Args:
        proxy: asked.
        token: of its tenant.
        seed: of what it does.
    """

    def __init__(self, proxy: TenantProxy, token: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.proxy, self.token = proxy, token
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.done = 0

    def run(self) -> None:
        """Go on until told to stop."""
        client = self.proxy.client(self.token)
        while not self.stopping.is_set():
            try:
                self.act(client)
                self.done += 1
            except (httpx.HTTPError, ValueError):
                client.close()
                client = self.proxy.client(self.token)
                time.sleep(0.05)
        client.close()

    def act(self, client: httpx.Client) -> None:
        """One request, or two."""
        listed = client.get("/v1/vms").json()
        vms = [one["vm"]["id"] for one in listed if isinstance(one, dict) and "vm" in one]
        what = self.random.random()
        if what < 0.5 or not vms:
            key = f"key-{self.random.randrange(6)}"
            client.post("/v1/vms", json=ORDER, headers={"Idempotency-Key": key})
        elif what < 0.8:
            client.delete(f"/v1/vms/{self.random.choice(vms)}")
        else:
            vm = self.random.choice(vms)
            client.patch(f"/v1/vms/{vm}", json={"memory_mib": 256 + 64 * self.random.randrange(3)})


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Pool]:
    """Two controllers, two nodes."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    nodes = [Node("a", "127.0.5.1", vcpus=64), Node("b", "127.0.5.2", vcpus=64)]
    with pool(folder, nodes, controllers=2) as made:
        yield made


def proxy_of(fleet: Pool, folder: Path) -> TenantProxy:
    """A tenant proxy of these controllers that sweeps often."""
    return TenantProxy(
        folder / "proxy",
        Authority(folder),
        [one.settings["address"] for one in fleet.controllers],
        int(fleet.first.settings["port"]),
        address="127.0.0.1",
        settings={"sweep_seconds": 0.3, "request_seconds": 5, "lease_seconds": 12},
    )


def taken(fleet: Pool, tenant: str) -> Amount:
    """What really is on the nodes, whatever they are still at."""
    vms = []
    for node in fleet.nodes:
        with node.lock:
            vms += [dict(vm) for vm in node.vms.values() if vm["owner"] == tenant]
    return Amount(
        memory_mib=sum(vm["memory_mib"] for vm in vms),
        vcpus=sum(vm["vcpus"] for vm in vms),
        disk_gib=sum(vm["disk_gib"] for vm in vms),
        vms=len(vms),
    )


def still_open(store: Store) -> list[Allocation]:
    """What nobody has said the end of yet."""
    return [one for one in store.allocations() if one.state != "settled" or one.pending]


@pytest.mark.fault(
    "kill -9 of the tenant proxy at any moment",
    "nothing above a ceiling; once swept, what is taken is what runs",
)
def test_killed_at_any_moment_nothing_is_lost_or_doubled(fleet: Pool, tmp_path: Path) -> None:
    """TEN-08, TEN-09, TEN-10: the pool itself is not killed here; it has tests of its own."""
    with ExitStack() as stack:
        proxy = proxy_of(fleet, tmp_path)
        stack.callback(proxy.end)
        store = Store.open(proxy.store)
        stack.callback(store.close)
        tenants = {"acme": CEILING, "other": FEW}
        customers = [
            Customer(proxy, provision(store, name, ceiling), seed)
            for seed, (name, ceiling) in enumerate(tenants.items())
        ]
        for customer in customers:
            customer.start()
            stack.callback(customer.stopping.set)
        chance = random.Random(7)
        killed, hit = 0, 0
        while killed < ROUNDS or (not hit and killed < MOST_ROUNDS):
            time.sleep(chance.uniform(0.05, 0.6))
            if killed >= ROUNDS:
                # A slow machine begins nothing within that time.
                wait_for(lambda: unended(proxy.audit) != {}, "a change", seconds=120)
            proxy.kill()
            killed += 1
            hit += len(unended(proxy.audit))
            for name, ceiling in tenants.items():
                assert taken(fleet, name).fits(ceiling)
                assert taken(fleet, name).fits(store.tenant(name).used)
            proxy.start_again()
        wait_for(lambda: all(one.done for one in customers), "both are served", seconds=120)
        for customer in customers:
            customer.stopping.set()
            customer.join(120)
        wait_for(lambda: not still_open(store), "the sweeper", seconds=240)
        for name in tenants:
            assert store.tenant(name).used == taken(fleet, name)
        # What the killed ones began has an end in the log, too.
        wait_for(lambda: unended(proxy.audit) == {}, "the outcomes", seconds=120)
        print(f"{killed} kills, {hit} changes left without an outcome")
        codes = {entry.code for entry in proxy.entries() if entry.outcome == "failed"}
        assert "outcome_unknown" in codes
        assert all(len(on) == 1 for on in fleet.held().values())
