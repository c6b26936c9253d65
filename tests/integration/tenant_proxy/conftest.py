"""One stand for the tests of a module, with a tenant of its own for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ppn.tenant.store import Store
from tests.integration.tenant_proxy.parts import recording
from tests.integration.tenant_proxy.stand import Stand


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One proxy for all tests of a file."""
    settings = {"sweep_seconds": 0.2, "request_seconds": 30, "lease_seconds": 60}
    with recording(tmp_path_factory.mktemp("changes"), settings=settings) as (proxy, recorder):
        store = Store.open(proxy.store)
        yield Stand(proxy, recorder, store)
        store.close()


@pytest.fixture
def stand(shared: Stand, request: pytest.FixtureRequest) -> Stand:
    """The stand, for a tenant that is called like the test."""
    shared.begin(request.node.name.replace("[", "-").replace("]", "")[:60])
    return shared
