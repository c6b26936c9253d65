"""Many orders at once against one ceiling, through two proxies, on both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from ppn.tenant.model import Amount
from ppn.tenant.store import Store
from tests.integration.proxy.parts import Authority
from tests.integration.tenant_proxy.parts import ONE, ORDER, TenantProxy, provision
from tests.integration.tenant_proxy.recorder import Recorder
from tests.postgres import cluster

ORDERS, ROOM = 200, 5


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/tenants.db"
        return
    with cluster() as running:
        yield running.database()


def test_of_200_orders_into_room_for_5_exactly_5_are_made(url: str, tmp_path: Path) -> None:
    """TEN-08, TEN-09: by two proxies that know of each other through the store alone."""
    limits = {"burst": ORDERS, "source_rate": ORDERS}
    recorder = Recorder("127.0.3.9")
    with ExitStack() as stack:
        stack.callback(recorder.close)
        authority = Authority(tmp_path)
        proxies = []
        for number in (1, 2):
            proxies.append(
                TenantProxy(
                    tmp_path / f"proxy-{number}",
                    authority,
                    [recorder.address],
                    recorder.port,
                    store=url,
                    address=f"127.0.3.{number}",
                    settings={"limits": limits},
                )
            )
            stack.callback(proxies[-1].end)
        store = Store.open(url)
        stack.callback(store.close)
        many = Amount(1 << 20, 1 << 10, 1 << 10, 1 << 10)
        # Each figure by turns is the one that binds.
        for name, one in vars(ONE).items():
            tenant = f"tight-{name.replace('_', '-')}"
            token = provision(store, tenant, Amount(**{**vars(many), name: ROOM * one}))
            clients = [stack.enter_context(proxy.client(token)) for proxy in proxies]

            def order(number: int, clients: list[httpx.Client] = clients) -> tuple[int, str]:
                answer = clients[number % 2].post("/v1/vms", json=ORDER)
                return answer.status_code, answer.json().get("code", "")

            with ThreadPoolExecutor(32) as pool:
                found = Counter(pool.map(order, range(ORDERS // 4 if name != "vms" else ORDERS)))
            assert found.pop((201, "")) == ROOM, found
            assert set(found) == {(403, "quota_exceeded")}
            assert store.tenant(tenant).used.vms == ROOM
            made = [vm for vm in recorder.vms.values() if vm["owner"] == tenant]
            assert len(made) == ROOM
        assert len(recorder.asked("POST")) == 4 * ROOM
        # Not every database takes every text: what it does not take is no VM of anybody.
        for hostile in ("vm%00x", "%ED%A0%80", "x" * 500, "vm'--"):
            answer = clients[0].get(f"/v1/vms/{hostile}")
            assert (answer.status_code, answer.json()["code"]) == (404, "vm_unknown")
