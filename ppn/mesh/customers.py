"""Where customers' tunnels end (MESH-03).

A customer's tunnels end at doors: the tenant proxies that have an endpoint, and the carrier for
those that have none. On a door the tunnel to a customer owns the customer's address at all times;
all other nodes send that address to the carrier, as they do with all they know no tunnel of.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from ppn.errors import Refusal
from ppn.inventory import TENANT_PROXY, Pool
from ppn.mesh.registry import Registry


@dataclass(frozen=True)
class Door:
    """A node where customers' tunnels end.

    Args:
        name: the node's.
        public_key: base64.
        endpoint: `host:port` where customers reach its WireGuard port.
        proxies: mesh addresses of the tenant proxies customers reach through it.
    """

    name: str
    public_key: str
    endpoint: str
    proxies: tuple[IPv4Address, ...]


def doors_of(pool: Pool, registry: Registry) -> tuple[Door, ...]:
    """The doors of a pool, in the order of the inventory; none without customers.

    Args:
        pool: the sound nodes of the inventory.
        registry: their public keys; a node without one is no door yet.

    Raises:
        Refusal: a customer's key is a node's (`key_shared`).
    """
    if not pool.tenant_peers:
        return ()
    _refuse_keys_of_nodes(pool, registry)
    members = [one for one in pool.nodes if one.name in registry.keys]
    carrier = next((one for one in members if one.is_relay), None)
    proxies = [one for one in members if TENANT_PROXY in one.roles]
    doors = []
    for node in members:
        reached = [
            one.address
            for one in proxies
            if one is node or (one.endpoint is None and node is carrier)
        ]
        if reached and node.endpoint is not None:
            key = registry.keys[node.name]
            doors.append(Door(node.name, key, node.endpoint, tuple(reached)))
    return tuple(doors)


def _refuse_keys_of_nodes(pool: Pool, registry: Registry) -> None:
    owners = {key: name for name, key in registry.keys.items()}
    for peer in pool.tenant_peers:
        if peer.public_key in owners:
            raise Refusal(
                f"tenant peer {peer.name} has the WireGuard key of node {owners[peer.public_key]}",
                code="key_shared",
                constraint="peer registry",
                hint="ask the customer for a key of its own, and put it into tenant_peers",
            )
