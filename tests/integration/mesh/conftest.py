"""A relay, two nodes behind it that cannot see each other, two customers: meshed as a pool is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ppn.inventory import Pool, pool_from_data
from ppn.mesh.registry import Registry, load, record
from tests.integration.mesh.namespaces import Namespace, connect, ppn_mesh

DATA: dict[str, dict[str, Any]] = {
    "relay": {
        "roles": ["relay", "tenant-proxy"],
        "site": "cloud",
        "mesh_address": "10.8.0.1",
        "endpoint": "198.51.100.1:51820",
    },
    # Reachable at 203.0.113.2 by whoever has a route to it.
    "server": {"site": "a", "mesh_address": "10.8.0.2", "endpoint": "203.0.113.2:51820"},
    # Without an endpoint: customers reach it through the relay.
    "laptop": {"site": "b", "mesh_address": "10.8.0.3", "roles": ["tenant-proxy", "controller"]},
}
CUSTOMERS = {"acme-desk": "10.8.0.201", "beta-desk": "10.8.0.202"}


@dataclass
class Mesh:
    """The nodes of the test, and what their inventory says."""

    pool: Pool
    registry: Registry
    relay: Namespace
    server: Namespace
    laptop: Namespace
    stranger: Namespace
    customer: Namespace
    rival: Namespace

    @property
    def members(self) -> tuple[Namespace, ...]:
        """The nodes that the inventory knows."""
        return self.relay, self.server, self.laptop

    def without_customer(self, name: str) -> Pool:
        """The pool once its inventory names a customer no more."""
        kept = tuple(peer for peer in self.pool.tenant_peers if peer.name != name)
        return replace(self.pool, tenant_peers=kept)

    def key(self, node: Namespace) -> str:
        """A node's public key."""
        return self.registry.keys[node.name]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The mesh, up, with firewall, without path keepers."""
    nodes: list[Namespace] = []
    try:
        for name in (*DATA, "stranger", *CUSTOMERS):
            nodes.append(Namespace(name))
        yield bring_up(nodes, tmp_path_factory.mktemp("pool") / "peers.json")
    finally:
        for node in nodes:
            node.end()


def bring_up(nodes: list[Namespace], path: Path) -> Mesh:
    relay, server, laptop, stranger, customer, rival = nodes
    relay.sh("ip addr add 198.51.100.1/32 dev lo")
    server.sh("ip addr add 203.0.113.2/32 dev lo")
    for number, node in enumerate(nodes[1:], start=1):
        cable = connect(relay, f"192.0.2.{number * 4 + 1}/30", node, f"192.0.2.{number * 4 + 2}/30")
        node.sh(f"ip route add 198.51.100.1 via 192.0.2.{number * 4 + 1} dev {cable}")
    relay.sh("ip route add 203.0.113.2 via 192.0.2.6")
    public = {}
    for node in nodes:
        node.sh("umask 077; wg genkey > /etc/wireguard/ppn0.key")
        public[node.name] = node.sh("wg pubkey < /etc/wireguard/ppn0.key").strip()
        if node.name in DATA:
            record(path, node.name, public[node.name])
    peers = [
        {"name": name, "tenant": name[:4], "mesh_address": address, "public_key": public[name]}
        for name, address in CUSTOMERS.items()
    ]
    pool, problems = pool_from_data({"tenant_peers": peers}, DATA)
    if problems:
        raise ValueError(problems)
    found = Mesh(pool, load(path), relay, server, laptop, stranger, customer, rival)
    for node in found.members:
        node.configure(pool, found.registry)
        node("nft", "-f", "/etc/ppn.nft")
        node("wg-quick", "up", "ppn0")
    for node, peer in zip((customer, rival), pool.tenant_peers, strict=True):
        conf = relay(*ppn_mesh("customer", peer.name)).stdout
        node.write("/etc/wireguard/ppn0.conf", conf)
        node("wg-quick", "up", "ppn0")
    return found
