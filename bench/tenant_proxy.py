"""Requests through the tenant proxy against the same asked of the fleet controller directly."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from bench.result import Result, overhead
from ppn.errors import PpnError
from ppn.tenant.store import Store
from tests.integration.fleet.node import Node
from tests.integration.fleet.parts import pool
from tests.integration.proxy.parts import Authority
from tests.integration.tenant_proxy.parts import (
    ROOMY,
    TenantProxy,
    allocate,
    context_of,
    provision,
)

# The median of a question, one at a time; a token, a guard, TLS and one more hop are in it.
AIM = 4.0
ONE_BY_ONE, MANY, AT_ONCE = 300, 1200, 16
TENANT, KEY = "acme", "bench"


class LoadFailed(PpnError):
    """An answer was not what it should have been."""

    code = "load_failed"


@dataclass(frozen=True)
class Side:
    """One of the two that are asked.

    Args:
        client: makes a client for it.
        vm: the VM that is asked about.
    """

    client: Callable[[], httpx.AsyncClient]
    vm: str


def measure(runs: int) -> Result:
    """Ask both the same in pairs, the first of each pair by turns: one by one, then many at once.

    The controller and the node proxies are real; behind them stands an agent that only counts.

    Args:
        runs: how many pairs.

    Raises:
        LoadFailed: an answer was not what it should have been.
    """
    ours: list[float] = []
    peer: list[float] = []
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    changes: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory(prefix="ppn-bench-") as name, sides(Path(name)) as both:
        for pair in range(-1, runs):
            order = [("ours", ours), ("peer", peer)]
            for who, series in order if pair % 2 else reversed(order):
                questions, rate, change = asyncio.run(load(both[who]))
                if pair >= 0:
                    series.append(questions)
                    rates[who].append(rate)
                    changes[who].append(change)
                print(
                    f"pair {pair + 1}: {who}: a question {questions * 1e3:.1f} ms, {rate:.0f}"
                    f" questions/s, a change {change * 1e3:.1f} ms",
                    flush=True,
                )
    added = statistics.median(own - their for own, their in zip(ours, peer, strict=True))
    more = statistics.median(
        own - their for own, their in zip(changes["ours"], changes["peer"], strict=True)
    )
    return replace(
        overhead("tenant_proxy", ours, peer, most=AIM),
        figures={
            "added_ms_per_question": round(added * 1e3, 2),
            "added_ms_per_change": round(more * 1e3, 2),
            "questions_per_second": round(statistics.median(rates["ours"])),
            "questions_per_second_of_the_controller": round(statistics.median(rates["peer"])),
        },
    )


@contextmanager
def sides(folder: Path) -> Iterator[dict[str, Side]]:
    """A pool with one VM, and a proxy before it; both end with the block."""
    with pool(folder, [Node("a", "127.0.6.1", vcpus=64)]) as fleet:
        controller = fleet.first
        vm = str(controller.create(KEY).json()["vm"]["id"])
        limits = {"rate": 100000, "burst": 100000, "source_rate": 100000}
        proxy = TenantProxy(
            folder / "proxy",
            Authority(folder, "customers"),
            [controller.settings["address"]],
            int(controller.settings["port"]),
            address="127.0.0.1",
            settings={"limits": limits},
        )
        try:
            store = Store.open(proxy.store)
            token = provision(store, TENANT, ROOMY)
            allocate(store, TENANT, vm)
            store.close()
            trusting = context_of(proxy.authority)

            def ours() -> httpx.AsyncClient:
                return httpx.AsyncClient(
                    base_url=f"https://{proxy.address}:{proxy.port}",
                    headers={"Authorization": f"Bearer {token}"},
                    verify=trusting,
                    timeout=60,
                )

            def peer() -> httpx.AsyncClient:
                return httpx.AsyncClient(base_url=controller.url, verify=trusting, timeout=60)

            yield {"ours": Side(ours, vm), "peer": Side(peer, vm)}
        finally:
            proxy.end()


async def load(side: Side) -> tuple[float, float, float]:
    """Median seconds of a question, questions a second, median seconds of a change.

    Raises:
        LoadFailed: an answer was not what it should have been.
    """
    async with side.client() as client:

        async def timed(method: str, path: str) -> float:
            began = time.monotonic()
            answer = await client.request(method, path)
            if not answer.is_success:
                raise LoadFailed(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            return time.monotonic() - began

        path = f"/v1/vms/{side.vm}"
        questions = [await timed("GET", path) for _ in range(ONE_BY_ONE)]
        began = time.monotonic()

        async def some() -> None:
            for _ in range(MANY // AT_ONCE):
                await timed("GET", path)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        rate = MANY / (time.monotonic() - began)
        changes = [await timed("POST", f"{path}/start") for _ in range(ONE_BY_ONE // 3)]
    return statistics.median(questions), rate, statistics.median(changes)
