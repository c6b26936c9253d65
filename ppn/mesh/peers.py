"""Who peers with whom, and which addresses belong to which tunnel (MESH-04 ... MESH-07).

WireGuard routes by key: each address belongs to one peer of an interface, the longest prefix
decides, and a packet that arrives from a peer with a source address that belongs to another is
dropped. The tables follow from that:

* A node's tunnel to the relay (the first relay of the inventory that has a key; it is called the
  carrier) owns the whole mesh range, and every range behind nodes that have no tunnel of their own
  or whose direct path is not in use. Anything more specific wins over it: the relay is last.
* A direct tunnel between two nodes owns, at all times, only the other node's probe address. The
  path keepers test the tunnel with it. While the direct path is good, the keepers of both ends let
  it own the node's mesh address and ranges too.
* On a relay, and towards any relay but the carrier, a tunnel owns the node's address, probe address
  and ranges at all times. Relays have endpoints, so these tunnels are direct from the start.
* Without a relay, every direct tunnel owns the node's address and ranges at all times.
* A customer's tunnel ends at the doors (`ppn.mesh.customers`) and owns the customer's address.

With more than one relay all relays peer with each other and with every node, and the first one
carries; if it is lost for good, move another to the front of the inventory and run again.

A node's probe address is fd70:706e::N, where N is its position in the mesh range.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ppn.inventory import PROBE_RANGE, Node, Pool, TenantPeer
from ppn.mesh.customers import Door, doors_of
from ppn.mesh.registry import Registry

KEEPALIVE_SECONDS = 25

Network = IPv4Network | IPv6Network


class Kind(StrEnum):
    """How a peer is reached.

    STATIC: its own tunnel, always. SWITCHED: its own tunnel while both path keepers find it good,
    else the relay. RELAYED: the relay, always. UNREACHABLE: no tunnel and no relay.
    """

    STATIC = "static"
    SWITCHED = "switched"
    RELAYED = "relayed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Peer:
    """Another node, as one node's interface sees it.

    Args:
        name: its name in the inventory.
        address: its mesh address.
        probe: its probe address.
        ranges: networks behind it.
        public_key: base64.
        kind: how it is reached.
        endpoint: `host:port` where this node reaches it; `None` when it has to speak first.
        keepalive: whether this node has to keep a NAT open towards it.
    """

    name: str
    address: IPv4Address
    probe: IPv6Address
    ranges: tuple[IPv4Network, ...]
    public_key: str
    kind: Kind
    endpoint: str | None = None
    keepalive: bool = False

    @property
    def has_tunnel(self) -> bool:
        """Whether it is a peer in the sense of WireGuard."""
        return self.kind in (Kind.STATIC, Kind.SWITCHED)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its mesh address and ranges: what moves between the relay and its own tunnel."""
        return (IPv4Network(self.address), *self.ranges)


@dataclass(frozen=True)
class Interface:
    """The WireGuard interface of one node.

    Args:
        node: the node's name.
        interface: the interface's name.
        network: the mesh range.
        address, probe: the node's own mesh and probe address.
        port: the UDP port WireGuard listens on.
        relays: whether the node forwards between others.
        ranges: networks behind the node itself.
        guests: whether the node has VMs with ports.
        carrier: the peer that owns the mesh range; `None` on a relay and without one.
        peers: all other nodes that have a key, in the order of the inventory.
        customers: the customers' machines, on a door; none elsewhere.
        doors: all doors of the pool, on a door; none elsewhere.
    """

    node: str
    interface: str
    network: IPv4Network
    address: IPv4Address
    probe: IPv6Address
    port: int
    relays: bool
    ranges: tuple[IPv4Network, ...]
    guests: bool
    carrier: str | None
    peers: tuple[Peer, ...]
    customers: tuple[TenantPeer, ...] = ()
    doors: tuple[Door, ...] = ()

    @property
    def switched(self) -> tuple[Peer, ...]:
        """The peers whose path the keeper decides."""
        return tuple(peer for peer in self.peers if peer.kind is Kind.SWITCHED)

    @property
    def routes(self) -> tuple[IPv4Network, ...]:
        """Networks beyond the mesh range that the kernel must send into the interface."""
        return tuple(sorted(network for peer in self.peers for network in peer.ranges))

    @property
    def forwards(self) -> bool:
        """Whether packets that arrive from the mesh may leave again."""
        return self.relays or bool(self.ranges) or self.guests

    def allowed_ips(self, direct: frozenset[str] = frozenset()) -> dict[str, tuple[Network, ...]]:
        """What each tunnel owns.

        Args:
            direct: names of switched peers whose direct path is in use.

        Returns:
            Per public key its networks, sorted; no network appears twice.
        """
        nodes = {
            peer.public_key: tuple(sorted(self._owned(peer, direct), key=_order))
            for peer in self.peers
            if peer.has_tunnel
        }
        return nodes | {one.public_key: (IPv4Network(one.address),) for one in self.customers}

    def _owned(self, peer: Peer, direct: frozenset[str]) -> Iterable[Network]:
        yield IPv6Network(peer.probe)
        if peer.name == self.carrier:
            yield self.network
            yield from peer.ranges
            for other in self.peers:
                if other.kind is not Kind.STATIC and other.name not in direct:
                    yield from other.ranges
        elif peer.kind is Kind.STATIC or peer.name in direct:
            yield from peer.networks

    def direct_in(self, live: dict[str, frozenset[Network]]) -> frozenset[str]:
        """Which switched peers own their mesh address in a live interface.

        Args:
            live: per public key the networks it owns now.
        """
        return frozenset(
            peer.name
            for peer in self.switched
            if IPv4Network(peer.address) in live.get(peer.public_key, ())
        )


def interface_of(pool: Pool, registry: Registry, name: str) -> Interface:
    """The interface a node should have.

    Args:
        pool: the sound nodes of the inventory.
        registry: their public keys; a node without one is nobody's peer yet.
        name: the node.

    Raises:
        NodeUnknown: the pool has no such node.
        Refusal: a customer's key is a node's (`key_shared`).
    """
    node = pool.node(name)
    doors = doors_of(pool, registry)
    is_door = name in {door.name for door in doors}
    members = [one for one in pool.nodes if one is node or one.name in registry.keys]
    relay = next((one for one in members if one.is_relay), None)
    peers = tuple(
        _peer(pool, registry, node, other, relay is not None)
        for other in members
        if other is not node
    )
    return Interface(
        node=name,
        interface=pool.interface,
        network=pool.range,
        address=node.address,
        probe=probe_address(pool, node),
        port=pool.port,
        relays=node.is_relay,
        ranges=node.ranges,
        guests=node.vm_range is not None,
        carrier=relay.name if relay is not None and not node.is_relay else None,
        peers=peers,
        customers=pool.tenant_peers if is_door else (),
        doors=doors if is_door else (),
    )


def probe_address(pool: Pool, node: Node) -> IPv6Address:
    """The address path keepers test the direct tunnel to a node with."""
    return PROBE_RANGE[int(node.address) - int(pool.range.network_address)]


def endpoint_for(node: Node, other: Node) -> str | None:
    """Where `node` reaches `other`'s WireGuard port, if it can at all."""
    if node.site == other.site and other.site_endpoint is not None:
        return other.site_endpoint
    return other.endpoint


def _peer(pool: Pool, registry: Registry, node: Node, other: Node, relayed: bool) -> Peer:
    """How one node sees another; `relayed` tells whether there is a relay to fall back to."""
    endpoint = endpoint_for(node, other)
    back = endpoint_for(other, node)
    if endpoint is None and back is None:
        kind = Kind.RELAYED if relayed else Kind.UNREACHABLE
    elif relayed and not node.is_relay and not other.is_relay:
        kind = Kind.SWITCHED
    else:
        kind = Kind.STATIC
    return Peer(
        name=other.name,
        address=other.address,
        probe=probe_address(pool, other),
        ranges=other.ranges,
        public_key=registry.keys[other.name],
        kind=kind,
        endpoint=endpoint,
        keepalive=endpoint is not None and back is None,
    )


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen
