"""The relay carries between nodes that cannot see each other, for known nodes alone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest

from ppn.mesh.peers import interface_of
from tests.integration.mesh.conftest import Mesh
from tests.integration.mesh.namespaces import WITHOUT_RULES, Namespace, ppn_mesh

LISTEN = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    listener.accept()[0].close()
"""
SNIFF = """
import json, signal, socket
taps = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
taps.settimeout(0.2)
seen, told = set(), []
signal.signal(signal.SIGINT, lambda *_: told.append(True))
print("sniffing", flush=True)
while True:
    ending = bool(told)
    try:
        packet, address = taps.recvfrom(65536)
    except TimeoutError:
        # By now all has been looked at that came before it was told to end.
        if ending:
            break
        continue
    if address[0].startswith("v"):
        head = (packet[0] & 15) * 4
        seen.add((packet[9], int.from_bytes(packet[head + 2 : head + 4], "big")))
print(json.dumps(sorted(seen)))
"""
UDP = 17


@contextmanager
def listening(node: Namespace, address: str, port: int) -> Iterator[None]:
    program = node.start("python3", "-c", LISTEN, address, str(port))
    assert program.process.stdout and program.process.stdout.readline() == "listening\n"
    try:
        yield
    finally:
        program.signal(signal.SIGKILL)


def connects(node: Namespace, address: str, port: int, *, seconds: int = 15) -> bool:
    code = f"import socket; socket.create_connection(({address!r}, {port}), timeout={seconds})"
    return node("python3", "-c", code, accept=(0, 1)).returncode == 0


def test_the_relay_carries_between_nodes_and_only_it(mesh: Mesh) -> None:
    """MESH-05, MESH-07: A reaches B through a relay that runs nothing else; not without it."""
    assert mesh.laptop.reaches("10.8.0.2", count=10)
    assert not mesh.laptop("ip", "route", "get", "203.0.113.2", accept=(0, 2)).stdout
    setting = "/proc/sys/net/ipv4/conf/ppn0/forwarding"
    with mesh.relay.changed(f"echo 0 > {setting}", f"echo 1 > {setting}"):
        assert not mesh.laptop.reaches("10.8.0.2", seconds=1)
    assert mesh.laptop.reaches("10.8.0.2")


def test_tables_are_the_inventorys(mesh: Mesh) -> None:
    """MESH-04: what each tunnel owns is what the inventory says, on every node."""
    for node in mesh.members:
        shown = node("wg", "show", "ppn0", "allowed-ips").stdout
        live = {
            key: {ip_network(one) for one in networks}
            for key, *networks in (line.split() for line in shown.splitlines())
        }
        wanted = interface_of(mesh.pool, mesh.registry, node.name).allowed_ips()
        assert live == {key: set(networks) for key, networks in wanted.items()}


def test_a_stranger_gets_no_handshake(mesh: Mesh) -> None:
    """MESH-04: a peer that is not in the inventory is not answered, even if it knows the relay."""
    key = mesh.key(mesh.relay)
    mesh.stranger.write(
        "/etc/wireguard/ppn0.conf",
        "[Interface]\nAddress = 10.8.0.99/24\n"
        "PostUp = wg set %i private-key /etc/wireguard/%i.key\n"
        f"[Peer]\nPublicKey = {key}\nAllowedIPs = 10.8.0.0/24\nEndpoint = 198.51.100.1:51820\n",
    )
    mesh.stranger("wg-quick", "up", "ppn0")
    assert mesh.stranger.reaches("198.51.100.1")
    assert not mesh.stranger.reaches("10.8.0.1", count=8, seconds=1)
    assert mesh.stranger("wg", "show", "ppn0", "latest-handshakes").stdout.split() == [key, "0"]


def test_only_what_the_inventory_allows_gets_in(mesh: Mesh) -> None:
    """MESH-01: over the mesh SSH is reachable and any other port is not."""
    with listening(mesh.server, "10.8.0.2", 22), listening(mesh.server, "10.8.0.2", 8080):
        assert connects(mesh.laptop, "10.8.0.2", 22)
        assert not connects(mesh.laptop, "10.8.0.2", 8080, seconds=2)
        with mesh.server.changed(*WITHOUT_RULES):
            assert connects(mesh.laptop, "10.8.0.2", 8080)
        assert not connects(mesh.laptop, "10.8.0.2", 8080, seconds=2)


def test_a_mesh_address_is_not_reachable_through_the_underlay(mesh: Mesh) -> None:
    """MESH-02: a neighbour that routes a mesh address to a node's underlay gets no answer."""
    mesh.stranger("wg-quick", "down", "ppn0", accept=(0, 1))
    mesh.stranger.sh("ip route add 10.8.0.1 via 192.0.2.13")
    assert mesh.stranger.reaches("198.51.100.1")
    assert not mesh.stranger.reaches("10.8.0.1", seconds=1)
    with mesh.relay.changed(*WITHOUT_RULES):
        assert mesh.stranger.reaches("10.8.0.1")


def test_the_relay_forwards_for_known_sources_alone(mesh: Mesh) -> None:
    """MESH-05: a node cannot send with an address that the inventory does not know."""
    words = ("ping", "-n", "-q", "-c", "2", "-W", "1", "-I", "10.8.0.77", "10.8.0.2")
    address = "10.8.0.77/32 dev ppn0"
    with mesh.laptop.changed(f"ip addr add {address}", f"ip addr del {address}"):
        assert mesh.laptop(*words, accept=(0, 1)).returncode == 1


def test_nothing_but_wireguard_on_the_underlay(mesh: Mesh) -> None:
    """MESH-01: a sniffer beside the relay's cables sees UDP 51820 and nothing else."""
    sniffer = mesh.relay.start("python3", "-c", SNIFF)
    assert sniffer.process.stdout and sniffer.process.stdout.readline() == "sniffing\n"
    with listening(mesh.server, "10.8.0.2", 22):
        assert mesh.laptop.reaches("10.8.0.2")
        assert connects(mesh.laptop, "10.8.0.2", 22)
    seen = json.loads(sniffer.signal(signal.SIGINT))
    assert seen == [[UDP, 51820]]


@pytest.mark.parametrize("word", ["bogus = 1", "[Peer]\nPublicKey = short"])
def test_a_damaged_configuration_leaves_the_interface_as_it_is(mesh: Mesh, word: str) -> None:
    conf = mesh.laptop("cat", "/etc/wireguard/ppn0.conf").stdout
    before = sorted(mesh.laptop("wg", "showconf", "ppn0").stdout.splitlines())
    mesh.laptop.write("/etc/wireguard/ppn0.conf", f"{conf}{word}\n")
    failed = mesh.laptop(*ppn_mesh("sync"), accept=(0, 1))
    mesh.laptop.write("/etc/wireguard/ppn0.conf", conf)
    assert failed.returncode == 1
    assert sorted(mesh.laptop("wg", "showconf", "ppn0").stdout.splitlines()) == before
    assert mesh.laptop.reaches("10.8.0.2")
