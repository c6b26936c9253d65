"""What `wg set` has to say so that a live interface becomes what its conf file says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import groupby, islice

from ppn.mesh.peers import Network
from ppn.mesh.render import ConfigDamaged, joined

KEYS = frozenset({"PublicKey", "AllowedIPs", "Endpoint", "PersistentKeepalive", "ListenPort"})


@dataclass(frozen=True)
class Tunnel:
    """A peer as the conf file has it.

    Args:
        key: its public key.
        allowed: what it owns as long as the path keeper has moved nothing.
        endpoint: where its UDP port is reached, when that is known.
        keepalive: seconds between packets that keep a NAT open; `off` for none.
    """

    key: str
    allowed: tuple[Network, ...]
    endpoint: str | None
    keepalive: str


@dataclass(frozen=True)
class Conf:
    """What `wg-quick strip` prints for a conf file of ours.

    Args:
        port: UDP port the interface listens on.
        tunnels: its peers.
    """

    port: int
    tunnels: tuple[Tunnel, ...]


def parse_conf(stripped: str) -> Conf:
    """Read what `wg-quick strip` prints.

    Args:
        stripped: the text.

    Raises:
        ConfigDamaged: it is no conf file that ppn wrote.
    """
    port, sections = 0, []
    for number, line in enumerate(stripped.splitlines(), 1):
        text = line.partition("#")[0].strip()
        key, _, value = (part.strip() for part in text.partition("="))
        if text == "[Peer]":
            sections.append({"PersistentKeepalive": "off"})
        elif key in KEYS and sections:
            sections[-1][key] = value
        elif key == "ListenPort" and value.isdecimal():
            port = int(value)
        elif text not in ("", "[Interface]"):
            raise ConfigDamaged(f"line {number} of the conf file is not ppn's: {line!r}")
    if not port or not all("PublicKey" in section for section in sections):
        raise ConfigDamaged("the conf file has no port, or a peer without a public key")
    return Conf(port, tuple(_tunnel(section) for section in sections))


def _tunnel(section: Mapping[str, str]) -> Tunnel:
    networks = (one.strip() for one in section.get("AllowedIPs", "").split(","))
    return Tunnel(
        key=section["PublicKey"],
        allowed=tuple(ip_network(one) for one in networks if one),
        endpoint=section.get("Endpoint"),
        keepalive=section["PersistentKeepalive"],
    )


def owner_words(
    wanted: Mapping[str, Iterable[Network]], now: Mapping[str, frozenset[Network]]
) -> dict[str, tuple[str, ...]]:
    """For each tunnel whose addresses change, the words that change them, in this order.

    Who gains comes first: its gain leaves the present owner in the same moment. A tunnel that keeps
    its addresses is not named, for naming them takes them away for a moment.

    Args:
        wanted: per public key what its tunnel is to own.
        now: what it owns.
    """
    sets = {key: frozenset(networks) for key, networks in wanted.items()}
    order = sorted(sets, key=lambda key: not sets[key] - now.get(key, frozenset()))
    return {
        key: ("peer", key, "allowed-ips", joined(sorted(sets[key], key=str)))
        for key in order
        if now.get(key) != sets[key]
    }


def tunnel_words(
    conf: Conf, moved: Mapping[str, Iterable[Network]], now: Mapping[str, frozenset[Network]]
) -> Iterator[tuple[str, ...]]:
    """The words for each peer: who goes, who changes, who keeps its addresses.

    Args:
        conf: the conf file.
        moved: per public key what its tunnel is to own, the path keeper's choices included.
        now: per public key of a live peer what it owns.
    """
    tunnels = {tunnel.key: tunnel for tunnel in conf.tunnels}
    wanted = {key: moved.get(key, tunnel.allowed) for key, tunnel in tunnels.items()}
    for key in sorted(set(now) - set(tunnels)):
        yield ("peer", key, "remove")
    owners = owner_words(wanted, now)
    for key in [*owners, *(key for key in tunnels if key not in owners)]:
        tunnel = tunnels[key]
        endpoint = () if tunnel.endpoint is None else ("endpoint", tunnel.endpoint)
        keepalive = ("persistent-keepalive", tunnel.keepalive)
        yield (*owners.get(key, ("peer", key)), *endpoint, *keepalive)


def commands(words: Iterable[tuple[str, ...]], peers: int = 1000) -> Iterator[list[str]]:
    """The words of so many peers at once, for a command line has its bound.

    Who is removed is in a command without others: an endpoint's name that nobody knows just now
    fails all of a command, and must not keep anybody in.
    """
    for _, alike in groupby(words, key=lambda one: one[-1] == "remove"):
        while part := list(islice(alike, peers)):
            yield [word for one in part for word in one]
