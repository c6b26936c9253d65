"""A tenant proxy with one tenant, for tests of what becomes of its changes."""

from __future__ import annotations

import httpx

from ppn.tenant.model import Amount
from ppn.tenant.store import Store
from tests.integration.tenant_proxy.parts import ORDER, TenantProxy, provision
from tests.integration.tenant_proxy.recorder import Recorder

CEILING = Amount(memory_mib=1024, vcpus=8, disk_gib=20, vms=3)


class Stand:
    """A proxy, its controller, its store, and one tenant with room for a few VMs."""

    def __init__(self, proxy: TenantProxy, recorder: Recorder, store: Store) -> None:
        self.proxy, self.recorder, self.store = proxy, recorder, store
        self.tenant = ""
        self.token = ""

    def begin(self, tenant: str) -> None:
        """A tenant of its own for each test."""
        self.recorder.reset()
        self.tenant, self.token = tenant, provision(self.store, tenant, CEILING)

    def ask(self, method: str, path: str, **given: object) -> httpx.Response:
        """Ask the proxy in the tenant's name."""
        with self.proxy.client(self.token) as client:
            return client.request(method, f"/v1{path}", **given)  # type: ignore[arg-type]

    def create(self, key: str, **changes: object) -> httpx.Response:
        """Order a VM."""
        headers = {"Idempotency-Key": key}
        return self.ask("POST", "/vms", json={**ORDER, **changes}, headers=headers)

    @property
    def used(self) -> Amount:
        """What is taken of the ceiling."""
        return self.store.tenant(self.tenant).used

    def trail(self) -> list[tuple[str, str, str]]:
        """Operation, outcome and code of the tenant's entries."""
        entries = [one for one in self.proxy.entries() if one.tenant == self.tenant]
        return [(one.operation, one.outcome, one.code) for one in entries]
