"""The live interface: what each tunnel owns now, and moving it; `wg` and `ip` do the work."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

from ppn.mesh.changes import Conf, commands, owner_words, parse_conf, tunnel_words
from ppn.mesh.paths import MeshPaths
from ppn.mesh.peers import Interface, Network
from ppn.mesh.render import (
    addresses,
    applied_path,
    conf_path,
    key_path,
    parse_keeper_config,
    route,
)
from ppn.run import run

SECONDS = 5.0


def load_config(paths: MeshPaths) -> Interface:
    """The interface this node should have.

    Raises:
        ConfigDamaged: the file is no configuration of this version.
        OSError: it cannot be read.
    """
    return parse_keeper_config(paths.config.read_text(encoding="utf-8"))


@contextmanager
def exclusive(paths: MeshPaths) -> Iterator[None]:
    """Hold the node's lock on moving addresses between tunnels."""
    descriptor = os.open(paths.config, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def live(interface: str) -> dict[str, frozenset[Network]]:
    """What each tunnel owns now, by public key.

    Raises:
        CommandFailed: there is no such interface.
    """
    output = run(["wg", "show", interface, "allowed-ips"], timeout=SECONDS).stdout
    found: dict[str, frozenset[Network]] = {}
    for line in output.splitlines():
        key, *networks = line.split()
        found[key] = frozenset(ip_network(one) for one in networks if one != "(none)")
    return found


def move(paths: MeshPaths, interface: Interface, direct: frozenset[str]) -> bool:
    """Let the live tunnels own what they should while these peers' direct paths are in use.

    A peer that the live interface does not have is left out: `wg set` would make it anew.

    Args:
        direct: names of switched peers.

    Returns:
        Whether anything had to be moved.

    Raises:
        CommandFailed: the interface is gone or refuses.
    """
    with exclusive(paths):
        now = live(interface.interface)
        moved = owner_words(interface.allowed_ips(direct), now)
        words = [words for key, words in moved.items() if key in now]
        for command in commands(words):
            run(["wg", "set", interface.interface, *command], timeout=SECONDS)
        return bool(words)


def synchronise(paths: MeshPaths, interface: Interface) -> None:
    """Bring the live interface to its conf file without dropping a tunnel (MESH-04, MESH-06).

    Peers on their direct path stay there. Not by `wg syncconf`: it names the port and the addresses
    of all peers anew, and wireguard-go loses what arrives until it has opened its socket again.

    Raises:
        CommandFailed: the interface is gone, or the conf file is refused.
    """
    name = interface.interface
    conf = Path(conf_path(name))
    with exclusive(paths):
        digest = hashlib.sha256(conf.read_bytes()).hexdigest()
        stripped = run(["wg-quick", "strip", str(conf)], timeout=SECONDS).stdout
        set_tunnels(interface, parse_conf(stripped))
        _synchronise_addresses(interface)
        _synchronise_routes(interface)
        _synchronise_forwarding(interface)
        applied = Path(applied_path(name))
        applied.parent.mkdir(parents=True, exist_ok=True)
        applied.write_text(f"{digest}  -\n", encoding="utf-8")


def set_tunnels(interface: Interface, conf: Conf) -> None:
    """Give the live interface the key, port and peers of its conf file; what is right stays."""
    name = interface.interface
    now = live(name)
    words = ["private-key", key_path(name)]
    if int(run(["wg", "show", name, "listen-port"], timeout=SECONDS).stdout) != conf.port:
        words += ["listen-port", str(conf.port)]
    run(["wg", "set", name, *words], timeout=SECONDS)
    moved = interface.allowed_ips(interface.direct_in(now))
    for command in commands(tunnel_words(conf, moved, now)):
        run(["wg", "set", name, *command], timeout=SECONDS)


def _synchronise_addresses(interface: Interface) -> None:
    name = interface.interface
    shown = run(["ip", "-json", "address", "show", "dev", name, "scope", "global"], timeout=SECONDS)
    now = {
        f"{one['local']}/{one['prefixlen']}"
        for link in json.loads(shown.stdout)
        for one in link.get("addr_info", [])
        if "local" in one
    }
    wanted = addresses(interface)
    # Old ones first: a second address of one network goes when the first is deleted.
    for one in sorted(now - set(wanted)):
        run(["ip", "address", "del", one, "dev", name], timeout=SECONDS)
    for one in wanted:
        if one not in now:
            run(["ip", "address", "add", one, "dev", name], timeout=SECONDS)


def _synchronise_routes(interface: Interface) -> None:
    name = interface.interface
    shown = run(["ip", "-json", "route", "show", "dev", name, "proto", "static"], timeout=SECONDS)
    now = {ip_network(one["dst"]) for one in json.loads(shown.stdout or "[]")}
    for network in interface.routes:
        run(["ip", *route(network, name)], timeout=SECONDS)
    for stale in now - set(interface.routes):
        words = ["route", "del", str(stale), "dev", name, "proto", "static"]
        run(["ip", *words], timeout=SECONDS)


def _synchronise_forwarding(interface: Interface) -> None:
    base = Path("/proc/sys/net/ipv4")
    if interface.ranges:
        (base / "ip_forward").write_text("1")
    (base / "conf" / interface.interface / "forwarding").write_text(str(int(interface.forwards)))
