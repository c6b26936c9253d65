"""What a customer's machine reaches: the port of the tenant proxies, and nothing else at all."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from ppn.mesh.firewall import CONNECTIONS, LISTING
from tests.integration.mesh.conftest import CUSTOMERS, Mesh
from tests.integration.mesh.namespaces import WITHOUT_RULES, Namespace, wait_for
from tests.integration.mesh.test_relayed import connects, listening

NODES = {"relay": "10.8.0.1", "server": "10.8.0.2", "laptop": "10.8.0.3"}
PROXIES = ("10.8.0.1", "10.8.0.3")
# SSH, broker, controller, node proxy, tenant proxy, witness, somebody's web server.
LISTENED = (22, 9180, 9203, 9204, 9221, 9222, 8080)
SECONDS = 300
# Opens connections, none of which says anything, until one is not answered.
MANY = """
import socket, sys, time
held = []
try:
    while len(held) < 400:
        held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=8))
except OSError:
    pass
print(len(held), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def services(mesh: Mesh) -> Iterator[None]:
    """Somebody listens at each of those ports on every node, and at one of a customer's."""
    with ExitStack() as stack:
        for node in mesh.members:
            for port in LISTENED:
                stack.enter_context(listening(node, NODES[node.name], port))
        stack.enter_context(listening(mesh.rival, CUSTOMERS["beta-desk"], 9221))
        yield


def test_a_customer_reaches_each_proxy_directly_or_through_the_relay(
    mesh: Mesh, services: None
) -> None:
    """MESH-03: with the very configuration that `ppn mesh customer` printed."""
    for proxy in PROXIES:
        for customer in (mesh.customer, mesh.rival):
            # The first packet makes the tunnel, and may be lost for it.
            wait_for(partial(connects, customer, proxy, 9221), 120, f"{customer.name} to {proxy}")
    assert not connects(mesh.customer, "10.8.0.2", 9221, seconds=2)


def hostile(mesh: Mesh, customer: Namespace) -> None:
    """Let a customer's own side send everything to the relay: what it is told does not bind it."""
    words = ("peer", mesh.key(mesh.relay), "allowed-ips", "0.0.0.0/0")
    customer("wg", "set", "ppn0", *words)
    customer.sh("ip route replace 10.0.0.0/8 dev ppn0; ip route replace 203.0.113.2 dev ppn0")


def scan(node: Namespace, *words: str) -> Any:
    """What a scan from a node finds."""
    program = node.start(sys.executable, "-m", "tests.scan", *words)
    return json.loads(program.process.communicate(timeout=SECONDS)[0])


def test_nothing_but_the_proxies_port_answers_a_customer(mesh: Mesh, services: None) -> None:
    """MESH-03: all TCP ports of all nodes, the usual UDP ports, and another customer."""
    hostile(mesh, mesh.customer)
    found = scan(mesh.customer, *NODES.values())
    silent: dict[str, Any] = {"open": [], "otherwise": {}, "udp": {}}
    proxy = silent | {"open": [9221]}
    assert found == {address: proxy if address in PROXIES else silent for address in NODES.values()}
    other = CUSTOMERS["beta-desk"]
    assert scan(mesh.customer, other, "--ports", *map(str, LISTENED)) == {other: silent}


def unanswered(customer: Namespace, address: str, *options: str) -> str:
    """What `ping` says of an address that does not answer."""
    words = ("ping", "-n", "-c", "1", "-W", "0.5", *options, address)
    said = customer(*words, accept=(0, 1)).stdout
    assert " 0 received" in said, said
    return said


def test_no_ping_no_underlay_and_no_other_source_for_a_customer(mesh: Mesh, services: None) -> None:
    """MESH-03: nor what lies behind the relay, nor the relay's other addresses, nor in disguise."""
    hostile(mesh, mesh.customer)
    for address in (*NODES.values(), CUSTOMERS["beta-desk"], "203.0.113.2"):
        assert "From" not in unanswered(mesh.customer, address)
    # Nor does a hop that the packet ends at say anything.
    assert "From" not in unanswered(mesh.customer, "10.8.0.2", "-t", "1")
    for disguise in ("10.8.0.2", "10.8.0.202"):
        address = f"{disguise}/32 dev ppn0"
        with mesh.customer.changed(f"ip addr add {address}", f"ip addr del {address}"):
            unanswered(mesh.customer, "10.8.0.1", "-I", disguise)


def test_nobody_calls_a_customer(mesh: Mesh, services: None) -> None:
    """MESH-03: the way is one way; only answers come back, on the relay and behind it."""
    with listening(mesh.customer, CUSTOMERS["acme-desk"], 22):
        for node in (mesh.relay, mesh.laptop):
            assert not connects(node, CUSTOMERS["acme-desk"], 22, seconds=2)
            unanswered(node, CUSTOMERS["acme-desk"])


def test_a_customer_taken_out_is_cut_off(mesh: Mesh, services: None) -> None:
    """MESH-03: with the next run, without a touch to the other customer's tunnel."""
    assert connects(mesh.rival, "10.8.0.1", 9221)
    relay = mesh.relay
    rest = mesh.without_customer("beta-desk")
    relay.configure(rest, mesh.registry)
    relay.ppn("sync")
    try:
        assert not connects(mesh.rival, "10.8.0.1", 9221, seconds=2)
        assert connects(mesh.customer, "10.8.0.1", 9221)
    finally:
        relay.configure(mesh.pool, mesh.registry)
        relay.ppn("sync")


def test_one_customer_has_so_many_connections_and_keeps_nobody_out(
    mesh: Mesh, services: None
) -> None:
    """TEN-09, MESH-03: also those that never begin TLS, which the proxy itself does not see."""
    declared = mesh.relay(*LISTING.split()).stdout
    program = mesh.customer.start("python3", "-c", MANY, "10.8.0.1", "9221")
    # A few of the tests before may be counted still.
    assert program.process.stdout
    assert 240 <= int(program.process.stdout.readline()) <= CONNECTIONS
    assert not connects(mesh.customer, "10.8.0.1", 9221, seconds=2)
    # Its tunnel may be new: it was taken out and put in again.
    wait_for(lambda: connects(mesh.rival, "10.8.0.1", 9221), 180, "the other customer")
    # Or the next run would take it for another table, and load it anew.
    assert mesh.relay(*LISTING.split()).stdout == declared
    program.signal(signal.SIGKILL)
    wait_for(lambda: connects(mesh.customer, "10.8.0.1", 9221), 180, "room for more")


def test_without_the_rules_a_customer_would_reach_more(mesh: Mesh, services: None) -> None:
    """What the tests above prove is the firewall's doing: without it they would fail."""
    hostile(mesh, mesh.customer)
    with mesh.relay.changed(*WITHOUT_RULES):
        assert connects(mesh.customer, "10.8.0.1", 9203)
        assert mesh.customer.reaches("10.8.0.1", count=1)
    assert not connects(mesh.customer, "10.8.0.1", 9203, seconds=2)
