"""A relay and two nodes behind it that cannot see each other, meshed as a pool is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ppn.inventory import Pool, pool_from_data
from ppn.mesh.registry import Registry, load, record
from tests.integration.mesh.namespaces import Namespace, connect

DATA: dict[str, dict[str, Any]] = {
    "relay": {
        "roles": ["relay"],
        "site": "cloud",
        "mesh_address": "10.8.0.1",
        "endpoint": "198.51.100.1:51820",
    },
    # Reachable at 203.0.113.2 by whoever has a route to it.
    "server": {"site": "a", "mesh_address": "10.8.0.2", "endpoint": "203.0.113.2:51820"},
    "laptop": {"site": "b", "mesh_address": "10.8.0.3"},
}


@dataclass
class Mesh:
    """The nodes of the test, and what their inventory says."""

    pool: Pool
    registry: Registry
    relay: Namespace
    server: Namespace
    laptop: Namespace
    stranger: Namespace

    @property
    def members(self) -> tuple[Namespace, ...]:
        """The nodes that the inventory knows."""
        return self.relay, self.server, self.laptop

    def key(self, node: Namespace) -> str:
        """A node's public key."""
        return self.registry.keys[node.name]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The mesh, up, with firewall, without path keepers."""
    nodes: list[Namespace] = []
    try:
        for name in (*DATA, "stranger"):
            nodes.append(Namespace(name))
        yield bring_up(nodes, tmp_path_factory.mktemp("pool") / "peers.json")
    finally:
        for node in nodes:
            node.end()


def bring_up(nodes: list[Namespace], path: Path) -> Mesh:
    relay, server, laptop, stranger = nodes
    relay.sh("ip addr add 198.51.100.1/32 dev lo")
    server.sh("ip addr add 203.0.113.2/32 dev lo")
    for number, node in enumerate(nodes[1:], start=1):
        cable = connect(relay, f"192.0.2.{number * 4 + 1}/30", node, f"192.0.2.{number * 4 + 2}/30")
        node.sh(f"ip route add 198.51.100.1 via 192.0.2.{number * 4 + 1} dev {cable}")
    relay.sh("ip route add 203.0.113.2 via 192.0.2.6")
    pool, problems = pool_from_data({}, DATA)
    if problems:
        raise ValueError(problems)
    for node in nodes:
        node.sh("umask 077; wg genkey > /etc/wireguard/ppn0.key")
        public = node.sh("wg pubkey < /etc/wireguard/ppn0.key").strip()
        if node is not stranger:
            record(path, node.name, public)
    found = Mesh(pool, load(path), relay, server, laptop, stranger)
    for node in found.members:
        node.configure(pool, found.registry)
        node("nft", "-f", "/etc/ppn.nft")
        node("wg-quick", "up", "ppn0")
    return found
