"""The lab's networks as data, and the commands that make them so.

Everything is inside network namespaces of the lab: the machine's own network gets nothing, so
nothing can leave it and labs with the same addresses live side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from lab.topology import (
    CUSTOMER,
    CUSTOMER_ADDRESS,
    INTERNET,
    INTERNET_PREFIX,
    NODES,
    OPERATOR,
    OPERATOR_ADDRESS,
    PORTS,
    SITES,
    WIREGUARD_PORT,
    Kind,
    LabNode,
    Site,
    node_at,
)

SWITCH = "br0"
TAP = "tap0"
CUTS = "ppn_cuts"


@dataclass(frozen=True)
class Cable:
    """A pair of virtual Ethernet ends.

    Args:
        namespace: where the first end is.
        end: the first end's name.
        far_namespace: where the other end is.
        far_end: the other end's name.
    """

    namespace: str
    end: str
    far_namespace: str
    far_end: str


@dataclass(frozen=True)
class Namespace:
    """One network namespace.

    Args:
        name: its name inside the lab.
        switch: ends joined to a switch of its own; empty for none.
        tap: whether a machine's tap is on that switch.
        addresses: (end, address with prefix length).
        gateway: where its default route leads, if anywhere.
        settings: kernel settings below /proc/sys.
        rules: its nftables tables, as text.
    """

    name: str
    switch: tuple[str, ...] = ()
    tap: bool = False
    addresses: tuple[tuple[str, str], ...] = ()
    gateway: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    rules: str = ""


@dataclass(frozen=True)
class Network:
    """All of a lab's networking."""

    namespaces: tuple[Namespace, ...]
    cables: tuple[Cable, ...]


def plan(kinds: Mapping[str, Kind]) -> Network:
    """The networks of a lab.

    Args:
        kinds: what each of its nodes is, by name.
    """
    internet = Namespace(INTERNET, switch=PORTS)
    people = tuple(
        Namespace(name, addresses=(("eth0", f"{address}/{INTERNET_PREFIX}"),))
        for name, address in ((OPERATOR, OPERATOR_ADDRESS), (CUSTOMER, CUSTOMER_ADDRESS))
    )
    routers = tuple(router(site, node_at(site.name)) for site in SITES)
    nodes = tuple(node_namespace(node, kinds[node.name]) for node in NODES)
    cables = [Cable(INTERNET, person.name, person.name, "eth0") for person in people]
    cables += [Cable(INTERNET, site.name, site.name, "wan") for site in SITES]
    for node in NODES:
        end = "eth0" if kinds[node.name] is Kind.CONTAINER else "uplink"
        near = node.name if node.site == INTERNET else "lan"
        cables.append(Cable(node.site, near, node.name, end))
    return Network((internet, *people, *routers, *nodes), tuple(cables))


def node_namespace(node: LabNode, kind: Kind) -> Namespace:
    """A node's own namespace: its interface, or the switch that a machine is plugged into."""
    if kind is not Kind.CONTAINER:
        return Namespace(node.name, switch=("uplink",), tap=True)
    return Namespace(node.name, addresses=(("eth0", f"{node.address}/24"),), gateway=node.gateway)


def router(site: Site, node: LabNode) -> Namespace:
    """A home router: masquerade that keeps ports, and nothing let in but what it forwards."""
    return Namespace(
        site.name,
        addresses=(("wan", f"{site.wan}/{INTERNET_PREFIX}"), ("lan", f"{site.lan}/24")),
        settings=(("net.ipv4.ip_forward", "1"),),
        rules=router_rules(site, node),
    )


def router_rules(site: Site, node: LabNode) -> str:
    """The router's nftables rules.

    An unasked packet must be dropped before connection tracking keeps it: a kept one would
    take the port that the node's own traffic is to leave by.
    """
    forward = ""
    if site.forwards_wireguard:
        forward = f'iifname "wan" udp dport {WIREGUARD_PORT} dnat to {node.address}'
    return f"""\
table ip router
delete table ip router
table ip router {{
    chain incoming {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "wan" ip saddr {OPERATOR_ADDRESS} tcp dport 22 dnat to {node.address}
        {forward}
    }}
    chain outgoing {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" masquerade
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname {{ "lan", "lo" }} accept
        icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" oifname "wan" accept
        iifname "wan" ct status dnat accept
    }}
}}
"""


def interface_commands(space: Namespace) -> tuple[str, ...]:
    """Commands for `ip -batch` inside a namespace; running them again changes nothing."""
    commands = ["link set lo up"]
    if space.switch:
        commands.append(f"link set {SWITCH} up")
        members = (*space.switch, TAP) if space.tap else space.switch
        for end in members:
            commands += [f"link set {end} master {SWITCH}", f"link set {end} up"]
    for end, address in space.addresses:
        commands += [f"address replace {address} dev {end}", f"link set {end} up"]
    if space.gateway:
        commands.append(f"route replace default via {space.gateway}")
    return tuple(commands)


def hardware_address(space: str, end: str) -> str:
    """An end's Ethernet address: the same each time, so that neighbours need not learn it anew."""
    tail = hashlib.sha256(f"{space}/{end}".encode()).digest()[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def cut_rules(cuts: frozenset[tuple[str, str]]) -> str:
    """The internet's table that stops traffic between pairs of its switch's ports."""
    lines = []
    for one, other in sorted(cuts):
        lines += [
            f'iifname "{one}" oifname "{other}" drop',
            f'iifname "{other}" oifname "{one}" drop',
        ]
    table = f"table bridge {CUTS}\ndelete table bridge {CUTS}\n"
    if not cuts:
        return table
    body = "\n        ".join(lines)
    return f"""{table}table bridge {CUTS} {{
    chain between {{
        type filter hook forward priority filter; policy accept;
        {body}
    }}
}}
"""
