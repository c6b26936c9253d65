"""What a stranger on the internet reaches of the pool, and what a customer does: nearly nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab import wiring
from lab.topology import CUSTOMER
from ppn.run import run
from tests.lab.pool import LabPool, eventually

NODES = {"relay": "10.8.0.1", "server": "10.8.0.2", "laptop": "10.8.0.3"}
RELAY = "198.51.100.10"
# Routers of the lab's own, not of ppn: what they let through to the nodes behind them.
ROUTERS = ("198.51.100.11", "198.51.100.12")
PROXY = 9221
SECONDS = 300
# Through the tunnel, whose program may have to wait for its turn: a packet is repeated after 7 s.
WAIT = "8"


@pytest.fixture(scope="module")
def door(pool: LabPool) -> None:
    """The tenant proxy listens."""
    eventually(lambda: pool.run("relay", f"ss -Hltn 'sport = :{PROXY}'"), "the proxy listens")


def scan(pool: LabPool, *words: str) -> dict[str, dict[str, Any]]:
    """A scan from the customer's machine, which is on the internet."""
    argv = ("customer", "--", sys.executable, "-m", "tests.scan", *words)
    found: dict[str, dict[str, Any]] = json.loads(pool.lab(*argv, timeout=SECONDS))
    return found


def as_customer(pool: LabPool, *words: str) -> int:
    """The exit code of a command at the customer's."""
    argv = wiring.inside(pool.paths, CUSTOMER, words)
    return run(argv, timeout=30, accept=range(256)).returncode


def wg(pool: LabPool, *words: str) -> None:
    """Run `wg` on the customer's own side of the tunnel."""
    argv = wiring.inside(pool.paths, CUSTOMER, ["wg", *words])
    # Without WireGuard in the kernel, its program's socket is in that program's place alone.
    for pid in sorted(wiring.processes(pool.paths, CUSTOMER))[:1]:
        argv = ["nsenter", f"--target={pid}", "--mount", "--net", "--", "wg", *words]
    run(argv, timeout=30)


@pytest.fixture
def hostile(pool: LabPool) -> Iterator[None]:
    """A customer whose own side sends it all packets: what it is told does not bind it."""
    pool.lab("customer", "--", "true")
    key = pool.run("relay", "wg show ppn0 public-key").strip()
    wg(pool, "set", "ppn0", "peer", key, "allowed-ips", "10.0.0.0/8")
    wiring.ip(pool.paths, CUSTOMER, ["route", "replace", "10.0.0.0/8", "dev", "ppn0"])
    yield
    wiring.ip(pool.paths, CUSTOMER, ["link", "delete", "ppn0"])


def listening_anywhere(pool: LabPool) -> set[int]:
    """Every TCP port that some node listens on, leads to a guest, or is one of the well-known."""
    ports = set(range(1, 1024))
    for node in NODES:
        for line in pool.run(node, "ss -Hltn").splitlines():
            ports.add(int(line.split()[3].rpartition(":")[2]))
        if node != "relay":
            leases = [vm["lease"] for vm in pool.vms(node).values()]
            ports |= {port["host"] for lease in leases for port in lease["ports"]}
    return ports


def test_a_stranger_finds_wireguard_alone(pool: LabPool) -> None:
    """MESH-03: of all TCP ports of the public node, and of those that lead anywhere elsewhere."""
    ports = sorted(listening_anywhere(pool))
    found = scan(pool, RELAY) | scan(pool, *ROUTERS, "--ports", *map(str, ports))
    assert {address: one["open"] for address, one in found.items()} == {
        address: [] for address in (RELAY, *ROUTERS)
    }
    assert not [one for one in found.values() if "open" in one["udp"].values()]
    # The stranger is not merely cut off: the relay's closed ports say that they are.
    assert found[RELAY]["otherwise"].get("ECONNREFUSED", 0) > 60_000
    for node in NODES:
        assert pool.run(node, "echo SSH is there for the operator")


def test_only_the_tenant_proxy_answers_a_customer(pool: LabPool, door: None, hostile: None) -> None:
    """MESH-03: of all ports that lead anywhere, on nodes and to guests, and of the well-known."""
    guests = [
        vm["lease"]["address"] for node in ("server", "laptop") for vm in pool.vms(node).values()
    ]
    ports = sorted(listening_anywhere(pool))
    assert {22, 9203, 9204} < set(ports)
    addresses = [*NODES.values(), *guests]
    found = scan(pool, *addresses, "--wait", WAIT, "--ports", *map(str, ports))
    silent: dict[str, Any] = {"open": [], "otherwise": {}, "udp": {}}
    expected = {address: silent for address in addresses}
    expected[NODES["relay"]] = silent | {"open": [PROXY]}
    assert found == expected
    for address in addresses:
        assert as_customer(pool, "ping", "-n", "-q", "-c", "1", "-W", "1", address) != 0, address
