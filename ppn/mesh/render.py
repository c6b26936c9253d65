"""A node's WireGuard interface as text: the file wg-quick reads, and the path keeper's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from ppn.errors import PpnError
from ppn.inventory import PROBE_RANGE, TENANT_PROXY_PORT, TenantPeer
from ppn.mesh.customers import Door
from ppn.mesh.peers import KEEPALIVE_SECONDS, Interface, Kind, Network, Peer

FOLDER = "/etc/wireguard"
# Ranges are often somebody's local network: a node that stands in one keeps its own route.
ROUTE_METRIC = 1000
SCHEMA = 2


class ConfigDamaged(PpnError):
    """The path keeper's configuration is not what this version writes."""

    code = "mesh_config_damaged"


def key_path(interface: str) -> str:
    """Where a node keeps its private key; it is made there and never leaves."""
    return f"{FOLDER}/{interface}.key"


def conf_path(interface: str) -> str:
    """The file wg-quick reads."""
    return f"{FOLDER}/{interface}.conf"


def drop_in_path(interface: str) -> str:
    """What is added to wg-quick's unit where the kernel has no WireGuard."""
    return f"/etc/systemd/system/wg-quick@{interface}.service.d/ppn.conf"


def applied_path(interface: str) -> str:
    """Holds the SHA-256 of the conf file that is in force; gone after a boot."""
    return f"/run/ppn/{interface}.applied"


def wg_quick(interface: Interface) -> str:
    """The whole conf file of wg-quick, without the private key (MESH-04)."""
    name = interface.interface
    lines = [
        "# Written by ppn from the inventory; changes made here are undone by the next run.",
        f"# {interface.node}: the private key is in {key_path(name)}, made on this node.",
        "[Interface]",
        f"Address = {', '.join(addresses(interface))}",
        f"ListenPort = {interface.port}",
        "Table = off",
        f"PostUp = wg set %i private-key {key_path('%i')}",
        f"PostUp = echo {int(interface.forwards)} > /proc/sys/net/ipv4/conf/%i/forwarding",
    ]
    if interface.ranges:
        # Answers from a range arrive on other interfaces.
        lines.append("PostUp = echo 1 > /proc/sys/net/ipv4/ip_forward")
    lines += [f"PostUp = ip {' '.join(route(network, '%i'))}" for network in interface.routes]
    lines += [
        "PostUp = mkdir -p /run/ppn",
        f"PostUp = sha256sum < {conf_path('%i')} > {applied_path('%i')}",
    ]
    allowed = interface.allowed_ips()
    for peer in interface.peers:
        if peer.has_tunnel:
            lines += ["", *_section(peer, allowed[peer.public_key])]
    for customer in interface.customers:
        lines += ["", f"# {customer.name}, a customer", "[Peer]"]
        lines += [f"PublicKey = {customer.public_key}", f"AllowedIPs = {customer.address}/32"]
    return "\n".join(lines) + "\n"


def _section(peer: Peer, allowed: Iterable[Network]) -> Iterable[str]:
    yield f"# {peer.name}"
    yield "[Peer]"
    yield f"PublicKey = {peer.public_key}"
    yield f"AllowedIPs = {joined(allowed, ', ')}"
    if peer.endpoint is not None:
        yield f"Endpoint = {peer.endpoint}"
    if peer.keepalive:
        yield f"PersistentKeepalive = {KEEPALIVE_SECONDS}"


def customer_conf(customer: TenantPeer, doors: Iterable[Door]) -> str:
    """The whole conf file of a customer's wg-quick, without the private key (MESH-03).

    Args:
        customer: the customer's machine.
        doors: all doors of the pool.
    """
    lines = [
        f"# {customer.name} of {customer.tenant}: the way to the tenant proxies, and nowhere else.",
        *(f"# https://{proxy}:{TENANT_PROXY_PORT}" for door in doors for proxy in door.proxies),
        "[Interface]",
        f"Address = {customer.address}/32",
        # Made by the customer, as a node makes its own.
        f"PostUp = wg set %i private-key {key_path('%i')}",
    ]
    for door in doors:
        lines += [
            "",
            f"# {door.name}",
            "[Peer]",
            f"PublicKey = {door.public_key}",
            f"AllowedIPs = {', '.join(f'{proxy}/32' for proxy in door.proxies)}",
            f"Endpoint = {door.endpoint}",
            # An answer may come long after the question, and a NAT forgets sooner.
            f"PersistentKeepalive = {KEEPALIVE_SECONDS}",
        ]
    return "\n".join(lines) + "\n"


def addresses(interface: Interface) -> tuple[str, ...]:
    """The interface's own addresses with their prefix lengths."""
    return (
        f"{interface.address}/{interface.network.prefixlen}",
        f"{interface.probe}/{PROBE_RANGE.prefixlen}",
    )


def route(network: IPv4Network, interface: str) -> tuple[str, ...]:
    """The words for `ip` that send a range into the mesh."""
    words = ("route", "replace", str(network), "dev", interface)
    return (*words, "proto", "static", "metric", str(ROUTE_METRIC))


def joined(networks: Iterable[Network], separator: str = ",") -> str:
    """Networks as one text."""
    return separator.join(str(network) for network in networks)


def keeper_config(interface: Interface) -> str:
    """The content of /etc/ppn/mesh.json: the interface as the path keeper reads it."""
    data = {
        "schema": SCHEMA,
        "node": interface.node,
        "interface": interface.interface,
        "network": str(interface.network),
        "address": str(interface.address),
        "probe": str(interface.probe),
        "port": interface.port,
        "relays": interface.relays,
        "ranges": [str(network) for network in interface.ranges],
        "guests": interface.guests,
        "carrier": interface.carrier,
        "peers": [_peer_data(peer) for peer in interface.peers],
        "customers": [_customer_data(customer) for customer in interface.customers],
        "doors": [_door_data(door) for door in interface.doors],
    }
    return json.dumps(data, indent=2) + "\n"


def _peer_data(peer: Peer) -> dict[str, object]:
    return {
        "name": peer.name,
        "address": str(peer.address),
        "probe": str(peer.probe),
        "ranges": [str(network) for network in peer.ranges],
        "public_key": peer.public_key,
        "kind": peer.kind.value,
        "endpoint": peer.endpoint,
        "keepalive": peer.keepalive,
    }


def _customer_data(customer: TenantPeer) -> dict[str, object]:
    return {
        "name": customer.name,
        "tenant": customer.tenant,
        "address": str(customer.address),
        "public_key": customer.public_key,
    }


def _door_data(door: Door) -> dict[str, object]:
    return {
        "name": door.name,
        "public_key": door.public_key,
        "endpoint": door.endpoint,
        "proxies": [str(proxy) for proxy in door.proxies],
    }


def parse_keeper_config(text: str) -> Interface:
    """The interface from the content of /etc/ppn/mesh.json.

    Raises:
        ConfigDamaged: no JSON, another schema, or a field that is missing or not sound.
    """
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r}, not {SCHEMA}")
        return Interface(
            node=data["node"],
            interface=data["interface"],
            network=IPv4Network(data["network"]),
            address=IPv4Address(data["address"]),
            probe=IPv6Address(data["probe"]),
            port=int(data["port"]),
            relays=bool(data["relays"]),
            ranges=tuple(IPv4Network(value) for value in data["ranges"]),
            guests=bool(data["guests"]),
            carrier=data["carrier"],
            peers=tuple(_parse_peer(peer) for peer in data["peers"]),
            customers=tuple(_parse_customer(customer) for customer in data["customers"]),
            doors=tuple(_parse_door(door) for door in data["doors"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigDamaged(
            f"the mesh configuration is damaged: {error!r}",
            hint="run the pool's deploy for this node, which writes it anew",
        ) from error


def _parse_peer(data: Mapping[str, Any]) -> Peer:
    return Peer(
        name=data["name"],
        address=IPv4Address(data["address"]),
        probe=IPv6Address(data["probe"]),
        ranges=tuple(IPv4Network(value) for value in data["ranges"]),
        public_key=data["public_key"],
        kind=Kind(data["kind"]),
        endpoint=data["endpoint"],
        keepalive=bool(data["keepalive"]),
    )


def _parse_customer(data: Mapping[str, Any]) -> TenantPeer:
    address = IPv4Address(data["address"])
    return TenantPeer(data["name"], data["tenant"], address, data["public_key"])


def _parse_door(data: Mapping[str, Any]) -> Door:
    proxies = tuple(IPv4Address(proxy) for proxy in data["proxies"])
    return Door(data["name"], data["public_key"], data["endpoint"], proxies)
