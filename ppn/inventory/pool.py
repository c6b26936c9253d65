"""A pool, its nodes and its customers: plain values that are known to be sound."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from ppn.errors import PpnError

# The role of the nodes that customers may speak to; they may speak to no other.
TENANT_PROXY = "tenant-proxy"
TENANT_PROXY_PORT = 9221
KNOWN_ROLES = frozenset({"relay", "hypervisor", "controller", TENANT_PROXY, "witness"})
DEFAULT_RANGE = "10.8.0.0/24"
DEFAULT_INTERFACE = "ppn0"
DEFAULT_PORT = 51820
# Where path keepers listen, on probe addresses only; WireGuard itself cannot have this port.
KEEPER_PORT = 51821
# Of the pool's own services on mesh addresses: none of them may lead to a guest.
SERVICE_PORTS = frozenset({9180, 9203, 9204, TENANT_PROXY_PORT, 9222})
# The bridge of a hypervisor's VMs, the same on every node.
VM_BRIDGE = "ppnvm0"
# Probe addresses lie here: see `ppn.mesh.peers`.
PROBE_RANGE = IPv6Network("fd70:706e::/64")
# Five VMs beside the gateway.
SMALLEST_VM_RANGE = 29


class NodeUnknown(PpnError):
    """A name that no sound node of the inventory has."""

    code = "node_unknown"


@dataclass(frozen=True)
class Node:
    """A node of the pool.

    Args:
        name: its name in the inventory.
        address: its address in the mesh.
        site: nodes of one site may reach each other without leaving it.
        roles: what it does.
        endpoint: `host:port` where other sites reach its WireGuard port; `None` behind NAT.
        reserved: used for placement only when nothing else has room.
        ranges: further IPv4 networks behind the node.
        site_endpoint: `host:port` where nodes of its own site reach its WireGuard port.
        vm_range: the network of its VMs; they are reached through ports of the node alone.
    """

    name: str
    address: IPv4Address
    site: str
    roles: frozenset[str] = frozenset()
    endpoint: str | None = None
    reserved: bool = False
    ranges: tuple[IPv4Network, ...] = ()
    site_endpoint: str | None = None
    vm_range: IPv4Network | None = None

    @property
    def is_relay(self) -> bool:
        """Whether it forwards between nodes that have no direct path (MESH-05, MESH-07)."""
        return "relay" in self.roles


@dataclass(frozen=True)
class TenantPeer:
    """A customer's machine: a WireGuard peer that may speak to the tenant proxies alone (MESH-03).

    Args:
        name: its name in the inventory; no node has it.
        tenant: whose it is.
        address: its address in the mesh.
        public_key: base64; its private key never leaves the customer.
    """

    name: str
    tenant: str
    address: IPv4Address
    public_key: str


@dataclass(frozen=True)
class Pool:
    """The sound nodes of an inventory, in its order, and what holds for all of them.

    Args:
        range: the network the mesh addresses are from.
        interface: the WireGuard interface's name on every node.
        port: the UDP port WireGuard listens on.
        nodes: in the order of the inventory.
        tenant_peers: the customers' machines, in the order of the inventory.
        ssh_from: networks outside the mesh that may open SSH connections to nodes; `None` for all.
    """

    range: IPv4Network
    interface: str
    port: int
    nodes: tuple[Node, ...]
    tenant_peers: tuple[TenantPeer, ...] = ()
    ssh_from: tuple[IPv4Network | IPv6Network, ...] | None = None

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            NodeUnknown: the inventory has no sound node of that name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise NodeUnknown(f"the pool has no node {name!r}", hint=f"its sound nodes are: {known}")
