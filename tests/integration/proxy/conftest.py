"""One proxy for the tests of a module, with a recording agent behind it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ppn.pool.tls import TlsFiles
from tests.integration.proxy.parts import Proxy, done, proxy_with_agent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy for many callers of one address."""
    limits = {"connections_of_one": 200}
    with proxy_with_agent(tmp_path_factory.mktemp("proxy"), limits=limits) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    """The module's proxy, with an agent that does as it is asked."""
    running.agent.reply = done
    return running


@pytest.fixture(scope="module")
def controller(running: Proxy) -> TlsFiles:
    """The certificate of a fleet controller."""
    return running.authority.issue("relay", "relay", "controller")


@pytest.fixture(scope="module")
def http(running: Proxy, controller: TlsFiles) -> Iterator[httpx.Client]:
    """An HTTP client with a controller's certificate."""
    with running.client(controller) as client:
        yield client
