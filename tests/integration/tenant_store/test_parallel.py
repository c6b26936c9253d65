"""Many at once, from several processes: what the gate of a tenant lets through."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import ExitStack

from sqlalchemy import select

from ppn.tenant import database
from ppn.tenant.database import transaction
from ppn.tenant.schema import tenants
from ppn.tenant.store import Store
from tests.integration.tenant_store.programs import next_line, say, started
from tests.postgres import Cluster
from tests.unit.tenant.samples import NOW, ROOM_FOR_5, SMALL

PROCESSES, EACH = 4, 50


def test_two_hundred_at_once_with_room_for_five(url: str, store: Store) -> None:
    """TEN-09: from several processes, exactly five get through; the rest are refused for quota."""
    store.create_tenant("acme", ROOM_FOR_5, now=NOW)
    with ExitStack() as all_of_them:
        crowds = [
            all_of_them.enter_context(started("crowd", url, f"p{number}", str(EACH)))
            for number in range(PROCESSES)
        ]
        assert [next_line(crowd) for crowd in crowds] == ["ready"] * PROCESSES
        for crowd in crowds:
            say(crowd, "go")
        found: Counter[str] = Counter()
        for crowd in crowds:
            found.update(json.loads(next_line(crowd)))
    assert found == {"made": 5, "quota_exceeded": PROCESSES * EACH - 5}
    assert store.tenant("acme").used == ROOM_FOR_5


def test_another_tenant_does_not_wait_for_a_locked_one(postgres: Cluster) -> None:
    """TEN-09: while one tenant's transaction hangs, another's goes through.

    SQLite has one writer for all; a proxy's transactions never wait for the fleet.
    """
    url = postgres.database()
    engine = database.open_engine(database.parse_url(url))
    with Store.open(url, upgrade=True) as store:
        for name in ("acme", "globex"):
            store.create_tenant(name, ROOM_FOR_5, now=NOW)
        waiting = threading.Thread(
            target=lambda: store.reserve("acme", "vm-a", SMALL, lease_seconds=60, now=NOW)
        )
        with transaction(engine) as connection:
            query = select(tenants.c.name).where(tenants.c.name == "acme").with_for_update()
            connection.execute(query).one()
            waiting.start()
            store.reserve("globex", "vm-g", SMALL, lease_seconds=60, now=NOW)
            waiting.join(0.5)
            assert waiting.is_alive()  # its own tenant's order does wait
        waiting.join(30)
        assert {one.vm for one in store.allocations()} == {"vm-a", "vm-g"}
    engine.dispose()
