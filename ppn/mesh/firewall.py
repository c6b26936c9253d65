"""What the inventory allows on the mesh, as an nftables table of our own (MESH-01, MESH-02).

The table `inet ppn` judges only what enters or leaves through the mesh interface, and packets for
mesh addresses that arrive from anywhere else. The underlay is not its business, but for SSH where
the inventory says whence operators come (`ssh_from`): WireGuard's UDP port, and SSH where it says
nothing, stay as reachable as they were. No other table is touched. Ports of VMs are opened
by the node's own table (`ppn.host.rules`); this one says who may come that far.

A customer's machine may open connections to the ports of tenant proxies, and nothing else: no other
packet with its address gets into a node or through a relay, and no node may call it (MESH-03).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from ppn.inventory import KEEPER_PORT, PROBE_RANGE, VM_BRIDGE, Node, Pool
from ppn.mesh.peers import probe_address

TABLE = "ppn"
FILE = "/etc/nftables.d/ppn.nft"
# Of each customer at each tenant proxy. Whose TLS handshake is not over counts, too: the proxy
# itself does not see those.
CONNECTIONS = 256
# Who has how many, as the kernel counts them.
COUNTED = "customer_connections"
# The table as it was declared: without counters' values, nor who has connections just now.
LISTING = f"nft -s -t list table inet {TABLE}"


@dataclass(frozen=True)
class Service:
    """A port that others of the mesh may reach on a node.

    Args:
        port: destination port.
        protocol: of the transport layer.
        from_role: only nodes with this role may; all nodes when `None`.
        on_role: only on nodes with this role; on all when `None`.
        for_tenants: whether customers' machines may, too.
    """

    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    from_role: str | None = None
    on_role: str | None = None
    for_tenants: bool = False

    def is_on(self, node: Node) -> bool:
        """Whether a node has it."""
        return self.on_role is None or self.on_role in node.roles


SSH = Service(22)


def ruleset(pool: Pool, node: Node, services: Iterable[Service] = (SSH,)) -> str:
    """The whole file for `nft -f`; loading it replaces the table in one transaction.

    Args:
        pool: the sound nodes of the inventory.
        node: whose file it is.
        services: what is reachable over the mesh besides ICMP and the path keeper.
    """
    services = tuple(services)
    lines = [
        "# Written by ppn from the inventory; changes made here are undone by the next run.",
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        *(_block(f"set {COUNTED}", _counted()) if pool.tenant_peers else ()),
        *(_block("chain prerouting", _customers(pool, services)) if pool.tenant_peers else ()),
        *_block("chain input", _input(pool, node, services)),
        *_block("chain forward", _forward(pool, node, services)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _customers(pool: Pool, services: tuple[Service, ...]) -> Iterator[str]:
    """What customers may send at all, judged before anything could answer with an ICMP error."""
    yield "type filter hook prerouting priority raw; policy accept;"
    theirs = f'iifname "{pool.interface}" ip saddr {_customers_set(pool)}'
    for service in services:
        found = [one.address for one in pool.nodes if service.is_on(one)]
        if service.for_tenants and found:
            port = f"{service.protocol} dport {service.port}"
            yield f"{theirs} ip daddr {_set(found)} {port} accept"
    yield f"{theirs} counter drop"


def _counted() -> Iterator[str]:
    yield "type ipv4_addr; size 65536; flags dynamic;"


def _customers_set(pool: Pool) -> str:
    return _set(peer.address for peer in pool.tenant_peers)


def _input(pool: Pool, node: Node, services: tuple[Service, ...]) -> Iterator[str]:
    mesh = pool.interface
    yield "type filter hook input priority filter; policy accept;"
    if node.vm_range is not None:
        # Answers of the node's own VMs to the node itself; they may ask it nothing.
        yield f'iifname "{VM_BRIDGE}" ct state established ct status dnat accept'
    # A mesh address is reachable through the mesh alone, whatever the underlay routes here.
    yield f'iifname != {{ "lo", "{mesh}" }} ip daddr {pool.range} counter drop'
    yield f'iifname != {{ "lo", "{mesh}" }} ip6 daddr {PROBE_RANGE} counter drop'
    yield from _ssh_from_outside(pool)
    yield f'iifname != "{mesh}" accept'
    nodes = [one.address for one in pool.nodes]
    probes = _set(probe_address(pool, one) for one in pool.nodes)
    yield (
        f"ip6 saddr {probes} ip6 daddr {probe_address(pool, node)} udp dport {KEEPER_PORT} accept"
    )
    yield f"ip6 saddr {probes} meta l4proto ipv6-icmp accept"
    for service in services:
        if service.for_tenants and pool.tenant_peers and service.is_on(node):
            theirs = (
                f"ip saddr {_customers_set(pool)} ip daddr {node.address}"
                f" {service.protocol} dport {service.port}"
            )
            over = f"add @{COUNTED} {{ ip saddr ct count over {CONNECTIONS} }}"
            yield f"{theirs} ct state new {over} counter drop"
            yield f"{theirs} accept"
    # Customers end here. Answers may come from a range behind a node; questions may not.
    yield f"ip saddr != {_set([*nodes, *_ranges(pool)])} counter drop"
    yield "ct state established,related accept"
    yield f"ip saddr {_set(nodes)} meta l4proto icmp accept"
    for service in services:
        sources = [
            one.address for one in pool.nodes if service.from_role in (None, *sorted(one.roles))
        ]
        if sources and service.is_on(node):
            yield f"ip saddr {_set(sources)} {service.protocol} dport {service.port} accept"
    yield "counter drop"


def _ssh_from_outside(pool: Pool) -> Iterator[str]:
    """New SSH connections that are not from the mesh; those there are go on."""
    if pool.ssh_from is None:
        return
    other = f'iifname != {{ "lo", "{pool.interface}" }} tcp dport {SSH.port} ct state new'
    for word, version in (("ip", 4), ("ip6", 6)):
        known = [network for network in pool.ssh_from if network.version == version]
        yield (
            f"{other} {word} saddr != {_set(known)} counter drop"
            if known
            else f"{other} meta nfproto ipv{version} counter drop"
        )


def _forward(pool: Pool, node: Node, services: tuple[Service, ...]) -> Iterator[str]:
    mesh = pool.interface
    yield "type filter hook forward priority filter; policy accept;"
    known = _set([*(one.address for one in pool.nodes), *_ranges(pool)])
    if node.is_relay:
        # Both directions are judged alike and without state: a flow may come here midway, when
        # its direct path is lost (MESH-05).
        yield f'iifname "{mesh}" oifname "{mesh}" ip saddr {known} ip daddr {known} accept'
        yield from _relayed_customers(pool, node, services)
    if node.ranges:
        own = _set(node.ranges)
        yield f'iifname "{mesh}" oifname != "{mesh}" ip saddr {known} ip daddr {own} accept'
        yield f'iifname != "{mesh}" oifname "{mesh}" ip saddr {own} ip daddr {known} accept'
    if node.vm_range is not None:
        # Only what a VM's open port was reached for, and its answers.
        peers = _set(one.address for one in pool.nodes)
        yield (
            f'iifname "{mesh}" oifname "{VM_BRIDGE}" ip saddr {peers}'
            f" ip daddr {node.vm_range} ct status dnat accept"
        )
        yield (
            f'iifname "{VM_BRIDGE}" oifname "{mesh}" ip saddr {node.vm_range} ip daddr {peers}'
            " ct state established,related ct status dnat accept"
        )
    yield f'iifname "{mesh}" counter drop'
    yield f'oifname "{mesh}" counter drop'


def _relayed_customers(pool: Pool, relay: Node, services: tuple[Service, ...]) -> Iterator[str]:
    """Customers to tenant proxies behind a relay, and the answers."""
    customers = _customers_set(pool) if pool.tenant_peers else ""
    mesh = f'iifname "{pool.interface}" oifname "{pool.interface}"'
    for service in services:
        found = [one.address for one in pool.nodes if one != relay and service.is_on(one)]
        if not (service.for_tenants and customers and found):
            continue
        port = f"{service.protocol} dport {service.port}"
        yield f"{mesh} ip saddr {customers} ip daddr {_set(found)} {port} accept"
        # Nobody may call a customer.
        yield (
            f"{mesh} ip saddr {_set(found)} ip daddr {customers}"
            f" {service.protocol} sport {service.port} ct state established accept"
        )


def _ranges(pool: Pool) -> list[IPv4Network]:
    return [network for one in pool.nodes for network in one.ranges]


def _set(values: Iterable[object]) -> str:
    """An anonymous set, in the order of the addresses so that the text is stable."""
    networks = sorted(_as_sortable(value) for value in values)
    return f"{{ {', '.join(text for _, text in networks)} }}"


def _as_sortable(value: object) -> tuple[int, str]:
    first = value.network_address if isinstance(value, IPv4Network) else value
    return (int(first) if isinstance(first, IPv4Address) else 0), str(value)


def _block(head: str, rules: Iterable[str]) -> list[str]:
    return [f"\t{head} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
