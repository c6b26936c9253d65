"""The texts are whole, deterministic, hold no private key, and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.inventory import Pool
from ppn.mesh.peers import interface_of
from ppn.mesh.render import ConfigDamaged, keeper_config, parse_keeper_config, wg_quick
from tests.unit.mesh.pools import SMALL, key_of, pools, registry_of

LAPTOP_CONF = f"""\
# Written by ppn from the inventory; changes made here are undone by the next run.
# laptop: the private key is in /etc/wireguard/ppn0.key, made on this node.
[Interface]
Address = 10.8.0.3/24, fd70:706e::3/64
ListenPort = 51820
Table = off
PostUp = wg set %i private-key /etc/wireguard/%i.key
PostUp = echo 0 > /proc/sys/net/ipv4/conf/%i/forwarding
PostUp = ip route replace 192.168.10.0/24 dev %i proto static metric 1000
PostUp = mkdir -p /run/ppn
PostUp = sha256sum < /etc/wireguard/%i.conf > /run/ppn/%i.applied

# relay
[Peer]
PublicKey = {key_of("relay")}
AllowedIPs = 10.8.0.0/24, 192.168.10.0/24, fd70:706e::1/128
Endpoint = 198.51.100.1:51820
PersistentKeepalive = 25

# server
[Peer]
PublicKey = {key_of("server")}
AllowedIPs = fd70:706e::2/128
Endpoint = 198.51.100.2:51820
PersistentKeepalive = 25
"""


def test_whole_file() -> None:
    """MESH-04: keys and ranges of the peers are in the file, the private key is not."""
    text = wg_quick(interface_of(SMALL, registry_of(SMALL), "laptop"))
    assert text == LAPTOP_CONF
    assert "PrivateKey" not in text


def test_only_a_relay_or_a_node_with_ranges_forwards() -> None:
    """MESH-05, MESH-07."""
    texts = {
        one.name: wg_quick(interface_of(SMALL, registry_of(SMALL), one.name)) for one in SMALL.nodes
    }
    forwarding = "echo 1 > /proc/sys/net/ipv4/conf/%i/forwarding"
    assert [name for name, text in texts.items() if forwarding in text] == ["relay", "server"]
    everywhere = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    assert [name for name, text in texts.items() if everywhere in text] == ["server"]


@given(st.one_of(pools(), pools(customers=True)))
def test_keeper_config_reads_back(pool: Pool) -> None:
    for node in pool.nodes:
        interface = interface_of(pool, registry_of(pool), node.name)
        assert parse_keeper_config(keeper_config(interface)) == interface


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 3}'])
def test_damaged_keeper_config(text: str) -> None:
    with pytest.raises(ConfigDamaged):
        parse_keeper_config(text)
