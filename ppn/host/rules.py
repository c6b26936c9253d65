"""The nftables rules around a node's VMs: whole, from what the VMs hold, and nothing else.

A guest may answer whoever reaches one of its open ports. It may open nothing to the mesh, to the
node or to another VM; to public addresses only where the node says so. What leaves a tap has the
VM's own hardware and IP address, or is dropped: IPv6, DHCP and all else with it. A tap that no
VM of the record has may send nothing at all.

Nor does a guest learn whose it is (INV-03): the node speaks to it alone, never to all, so that no
program of the node that announces itself is heard; and whoever reaches an open port is seen as
the gateway, for any other address would be that of a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ppn.host.model import NodeNetwork
from ppn.host.network import TAP_PREFIX, Guest
from ppn.inventory import VM_BRIDGE

TABLE = "ppn_vm"
FAMILIES = ("bridge", "inet")
# Before the bridge has looked at a frame at all.
FIRST = -300
# Also from the node itself; nft has no name for this place in the output hook.
DSTNAT = -100
# The bit of a hardware address that means more than one receiver.
TO_MANY = "01:00:00:00:00:00"
# Not the internet: this node's neighbours, other private networks, and nobody (RFC 6890).
NOT_PUBLIC = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12,"
    " 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3"
)


def ruleset(network: NodeNetwork, guests: Iterable[Guest]) -> str:
    """The whole text for `nft -f`; loading it replaces both tables in one transaction.

    Args:
        network: the node's.
        guests: its VMs, in any order.
    """
    present = sorted(guests, key=lambda guest: guest.interface.tap)
    return "\n".join([*_bridge(present), *_inet(network, present)]) + "\n"


def no_rules() -> str:
    """The text for `nft -f` that removes both tables, also when they are not there."""
    return "".join(_anew(family) + "\n" for family in FAMILIES)


def _bridge(guests: Sequence[Guest]) -> Iterator[str]:
    taps = f'"{TAP_PREFIX}*"'
    sources = [
        f'"{guest.interface.tap}" . {guest.interface.mac} . {guest.lease.address}'
        for guest in guests
    ]
    yield _anew("bridge")
    yield f"table bridge {TABLE} {{"
    yield from _set("set guests", "ifname . ether_addr . ipv4_addr", sources)
    yield from _block(
        "chain prerouting",
        f"type filter hook prerouting priority {FIRST}; policy accept;",
        f"iifname != {taps} accept",
        "iifname . ether saddr . ip saddr @guests accept",
        "iifname . ether saddr . arp saddr ip @guests"
        " iifname . arp saddr ether . arp saddr ip @guests accept",
        "counter drop",
    )
    yield from _block(
        "chain forward",
        "type filter hook forward priority filter; policy accept;",
        f"iifname {taps} oifname {taps} counter drop",
    )
    yield from _block(
        "chain output",
        "type filter hook output priority filter; policy accept;",
        f"oifname != {taps} accept",
        "ether type arp accept",
        f"ether type ip ether daddr & {TO_MANY} == 00:00:00:00:00:00 accept",
        "counter drop",
    )
    yield "}"


def _inet(network: NodeNetwork, guests: Sequence[Guest]) -> Iterator[str]:
    opened = [(guest.lease.address, port) for guest in guests for port in guest.lease.ports]
    ports = [
        f"{port.protocol} . {port.host} : {address} . {port.guest}" for address, port in opened
    ]
    targets = [f"{port.protocol} . {address} . {port.guest}" for address, port in opened]
    translate = f"ip daddr {network.mesh_address} dnat ip to meta l4proto . th dport map @ports"
    yield _anew("inet")
    yield f"table inet {TABLE} {{"
    yield from _set("map ports", "inet_proto . inet_service : ipv4_addr . inet_service", ports)
    yield from _set("set open", "inet_proto . ipv4_addr . inet_service", targets)
    yield from _block(
        "chain prerouting",
        "type nat hook prerouting priority dstnat; policy accept;",
        f'iifname "{network.mesh_interface}" {translate}',
    )
    yield from _block(
        "chain output", f"type nat hook output priority {DSTNAT}; policy accept;", translate
    )
    yield from _block(
        "chain input",
        "type filter hook input priority filter; policy accept;",
        f'iifname != "{VM_BRIDGE}" accept',
        "ct state established,related accept",
        # For who looks for a fault in a guest.
        f"ip daddr {network.gateway} icmp type echo-request accept",
        "counter drop",
    )
    yield from _block(
        "chain forward",
        "type filter hook forward priority filter; policy accept;",
        f'iifname "{VM_BRIDGE}" ct state established,related accept',
        f'oifname "{VM_BRIDGE}" ct state related ct status dnat accept',
        # Asked for each packet, so that a port that is closed is closed for those inside too.
        f'oifname "{VM_BRIDGE}" ct status dnat meta l4proto . ip daddr . th dport @open accept',
        *(_internet_forward(network) if network.internet else ()),
        f'iifname "{VM_BRIDGE}" counter drop',
        f'oifname "{VM_BRIDGE}" counter drop',
    )
    internet = f"ip saddr {network.range} ip daddr != {{ {NOT_PUBLIC} }} masquerade"
    yield from _block(
        "chain postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        f'oifname "{VM_BRIDGE}" ct status dnat masquerade',
        *((internet,) if network.internet else ()),
    )
    yield "}"


def _internet_forward(network: NodeNetwork) -> Iterator[str]:
    mesh = network.mesh_interface
    yield f'iifname "{VM_BRIDGE}" oifname != "{mesh}" ip daddr != {{ {NOT_PUBLIC} }} accept'
    yield f'oifname "{VM_BRIDGE}" ct state established,related ct status snat accept'


def _anew(family: str) -> str:
    return f"table {family} {TABLE}\ndelete table {family} {TABLE}"


def _set(head: str, kind: str, elements: Sequence[str]) -> list[str]:
    lines = [f"type {kind}"]
    if elements:
        lines.append(f"elements = {{ {', '.join(elements)} }}")
    return _block(head, *lines)


def _block(head: str, *rules: str) -> list[str]:
    return [f"\t{head} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
