"""What a live interface is told: what changes, and nothing else."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.inventory import Pool
from ppn.mesh.changes import commands, parse_conf, tunnel_words
from ppn.mesh.peers import Interface, Network, interface_of
from ppn.mesh.registry import Registry
from ppn.mesh.render import ConfigDamaged, wg_quick
from ppn.run import run
from tests.unit.mesh.pools import LAPTOP, SERVER, SMALL, key_of, pool, pools, registry_of

Live = dict[str, frozenset[Network]]


def stripped(interface: Interface, folder: Path) -> str:
    """What `wg-quick strip` prints for an interface."""
    conf = folder / "ppn0.conf"
    conf.write_text(wg_quick(interface))
    conf.chmod(0o600)
    return run(["wg-quick", "strip", conf], timeout=20).stdout


def without_names(interface: Interface) -> str:
    """The same without starting a program."""
    ours = ("Address", "Table", "PostUp")
    return "\n".join(line for line in wg_quick(interface).splitlines() if not line.startswith(ours))


def applied(now: Live, words: list[str]) -> Live:
    """What WireGuard makes of the words: an address that one peer gains leaves the others."""
    after = dict(now)
    rest = list(words)
    key = ""
    while rest:
        word = rest.pop(0)
        if word == "remove":
            del after[key]
            continue
        value = rest.pop(0)
        if word == "peer":
            key = value
            after.setdefault(key, frozenset())
        if word == "allowed-ips":
            gained = frozenset(ip_network(one) for one in value.split(",") if one)
            after = {other: owned - gained for other, owned in after.items()} | {key: gained}
    return after


def told(interface: Interface, direct: frozenset[str], now: Live) -> list[str]:
    """All words for an interface whose keeper has moved these peers."""
    words = tunnel_words(parse_conf(without_names(interface)), interface.allowed_ips(direct), now)
    return [word for command in commands(words, peers=2) for word in command]


def owned(interface: Interface, direct: frozenset[str] = frozenset()) -> Live:
    """What the tunnels of an interface own."""
    return {key: frozenset(networks) for key, networks in interface.allowed_ips(direct).items()}


def test_what_wg_quick_strips_is_read(tmp_path: Path) -> None:
    """MESH-04: peers with ranges, endpoint and keepalive."""
    conf = parse_conf(stripped(interface_of(SMALL, registry_of(SMALL), "laptop"), tmp_path))
    relay, server = conf.tunnels
    assert (conf.port, relay.key, server.key) == (51820, key_of("relay"), key_of("server"))
    assert (relay.endpoint, relay.keepalive) == ("198.51.100.1:51820", "25")
    assert ip_network("192.168.10.0/24") in relay.allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[Interface]",
        "[Interface]\nListenPort = x",
        "[Interface]\nListenPort = 1\n[Peer]\nEndpoint = a:1",
        "[Interface]\nListenPort = 1\nPrivateKey = k",
        "ListenPort = 1\n[Nonsense]",
    ],
)
def test_a_conf_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(ConfigDamaged):
        parse_conf(text)


def test_a_peer_whose_addresses_stay_is_not_told_them() -> None:
    """MESH-06: naming them takes them away for a moment; one on its direct path stays there."""
    interface = interface_of(SMALL, registry_of(SMALL), "laptop")
    direct = frozenset({"server"})
    words = told(interface, direct, owned(interface, direct))
    assert "allowed-ips" not in words and "remove" not in words
    assert words.count("endpoint") == 2


def test_a_peer_that_only_the_conf_knows_owns_what_it_says() -> None:
    interface = interface_of(SMALL, registry_of(SMALL), "laptop")
    words = tunnel_words(parse_conf(without_names(interface)), {}, {})
    assert applied({}, [word for one in words for word in one]) == owned(interface)


def test_a_node_without_peers_loses_the_old_ones() -> None:
    interface = interface_of(pool(LAPTOP, SERVER), Registry(), "laptop")
    assert told(interface, frozenset(), {"K": frozenset()}) == ["peer", "K", "remove"]


def test_who_is_removed_is_in_a_command_of_its_own() -> None:
    """MESH-03: whether or not another peer's endpoint has a name that is known just now."""
    gone = [("peer", name, "remove") for name in ("a", "b", "c")]
    kept = ("peer", "d", "endpoint", "relay.example:51820", "persistent-keepalive", "25")
    found = list(commands([*gone, kept], peers=2))
    assert found == [[*gone[0], *gone[1]], [*gone[2]], [*kept]]


@given(
    st.one_of(pools(), pools(customers=True)), st.one_of(pools(), pools(customers=True)), st.data()
)
def test_any_interface_becomes_any_other(before: Pool, after: Pool, data: st.DataObject) -> None:
    """MESH-04, MESH-06: from one inventory to another, wherever the keeper had moved its peers."""
    first = interface_of(before, registry_of(before), before.nodes[0].name)
    second = interface_of(after, registry_of(after), after.nodes[0].name)
    switched = st.frozensets(st.sampled_from([peer.name for peer in second.switched] or ["none"]))
    direct = data.draw(switched)
    now = owned(first)
    words = told(second, direct, now)
    assert applied(now, words) == owned(second, direct)
    assert "allowed-ips" not in told(second, direct, applied(now, words))
