"""The ringfence between network namespaces: a good certificate from another address is no use."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.pool.tls import TlsFiles
from tests.integration.mesh.namespaces import Namespace, connect
from tests.integration.proxy.parts import Authority, Proxy, RecordingAgent, wait_for

ASK = """
import sys, httpx
from pathlib import Path
from ppn.pool.tls import TlsFiles, client_context
context = client_context(TlsFiles(*map(Path, sys.argv[2:])))
try:
    print(httpx.get(sys.argv[1] + "/v1/vms", verify=context, timeout=20).status_code)
except httpx.TransportError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def nodes() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """The proxy's node, a controller at 10.8.0.1 and a neighbour at 10.8.0.5."""
    made: list[Namespace] = []
    try:
        for name in ("server", "relay", "neighbour"):
            made.append(Namespace(name))
        server, relay, neighbour = made
        for node, own in ((relay, "10.8.0.1"), (neighbour, "10.8.0.5")):
            cable = connect(server, "10.8.0.2/32", node, f"{own}/32")
            server.sh(f"ip route add {own} dev {cable}")
            node.sh(f"ip route add 10.8.0.2 dev {cable}")
        yield server, relay, neighbour
    finally:
        for node in made:
            node.end()


def asked_from(node: Namespace, files: TlsFiles, port: int) -> str:
    """What a client in a node gets from the proxy."""
    words = (f"https://10.8.0.2:{port}", *map(str, (files.key, files.certificate, files.trust)))
    return node(sys.executable, "-c", ASK, *words).stdout.strip()


def test_only_listed_addresses_are_served(
    nodes: tuple[Namespace, Namespace, Namespace], tmp_path: Path
) -> None:
    """NP-02: the same kind of certificate, from a listed address and from another."""
    server, relay, neighbour = nodes
    short = Path(tempfile.mkdtemp(prefix="ppn-proxy-"))
    agent = RecordingAgent(short / "agent.sock")
    settings = {"allowed": ["10.8.0.1/32"], "development": False}
    enter = ("nsenter", "-t", str(server.pid), "-n", "--")
    authority = Authority(tmp_path)
    proxy = Proxy(tmp_path, authority, agent, "10.8.0.2", enter, settings)
    try:
        listed = authority.issue("relay", "controller", address="10.8.0.1")
        other = authority.issue("neighbour", "controller", address="10.8.0.5")
        assert asked_from(relay, listed, proxy.port) == "200"
        asked = agent.bytes_seen
        assert asked_from(neighbour, other, proxy.port) == "ConnectError"
        assert asked_from(neighbour, listed, proxy.port) == "ConnectError"
        # A listed address with the certificate of another: TLS is spoken, and no more.
        assert asked_from(relay, other, proxy.port) == "403"
        assert agent.bytes_seen == asked
        wait_for(lambda: bool(proxy.lines("connection refused")), "the audit line")
        (line,) = proxy.lines("connection refused")
        assert (line["ip"], line["code"]) == ("10.8.0.5", "ringfence")
    finally:
        proxy.end()
        agent.close()
        shutil.rmtree(short)
