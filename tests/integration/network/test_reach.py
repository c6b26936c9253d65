"""Who reaches whom around a node's VMs, judged by real packets."""

from __future__ import annotations

from tests.integration.mesh.namespaces import Namespace, connect
from tests.integration.network.conftest import (
    GATEWAY,
    MESH,
    PEER,
    Site,
    fetch,
    is_silent,
    packets_dropped,
    serve,
)

WEB = [{"guest": 80}]


def test_a_port_answers_mesh_nodes_and_the_node_itself(site: Site) -> None:
    """IP-02: at the assigned port of the mesh address; nothing else of the guest does."""
    one = site.guest("one", ports=WEB)
    two = site.guest("two", ports=WEB)
    assert one.host_port() != two.host_port()
    for guest in (one, two):
        assert fetch(site.peer, MESH, guest.host_port()) == guest.name
        assert fetch(site.server, MESH, guest.host_port()) == guest.name
    site.peer.sh(f"ip route add 10.9.2.0/24 via {MESH}")
    assert is_silent(site.peer, one.lease.address, 80)


def test_a_guest_opens_nothing(site: Site) -> None:
    """Not to the mesh, not to the node, not to another guest, by whatever way."""
    one = site.guest("one", ports=WEB)
    two = site.guest("two", ports=WEB)
    for space in (site.peer, site.server):
        space.sh("mkdir -p /run/www; echo mine > /run/www/index.html")
        serve(space, 8080, "/run/www")
    assert fetch(site.server, PEER, 8080) == fetch(site.server, GATEWAY, 8080) == "mine"
    assert is_silent(one.space, PEER, 8080)
    for address in (GATEWAY, MESH):
        assert is_silent(one.space, address, 8080)
    assert is_silent(one.space, MESH, two.host_port())
    assert is_silent(one.space, two.lease.address, 80)
    # Through the gateway, as if the other were not a neighbour.
    one.space.sh(f"ip route add {two.lease.address} via {GATEWAY}")
    assert is_silent(one.space, two.lease.address, 80)
    assert one.space("ping", "-c1", "-W2", GATEWAY, accept=(0, 1)).returncode == 0


def test_a_guest_speaks_for_itself_alone(site: Site) -> None:
    """What leaves a tap has the VM's own addresses, or is dropped."""
    one = site.guest("one")
    two = site.guest("two")
    assert one.space.reaches(GATEWAY)
    one.space.sh("ip addr add 10.9.2.77/24 dev eth0")
    before = packets_dropped(site.server, "bridge", "prerouting")
    words = ("ping", "-c1", "-W1", "-I", "10.9.2.77", GATEWAY)
    assert one.space(*words, accept=(0, 1)).returncode == 1
    assert packets_dropped(site.server, "bridge", "prerouting") > before
    one.space.sh("ip addr del 10.9.2.77/24 dev eth0")
    # Another's hardware address, then another's IP address in what it says of its own.
    one.space.sh(f"ip link set eth0 address {two.mac}")
    assert not one.space.reaches(GATEWAY, count=1, seconds=1)
    one.space.sh(f"ip link set eth0 address {one.mac}")
    assert one.space.reaches(GATEWAY)
    before = packets_dropped(site.server, "bridge", "prerouting")
    stolen = two.lease.address
    one.space.sh(f"ip addr add {stolen}/24 dev eth0")
    claim = ("busybox", "arping", "-U", "-c", "1", "-I", "eth0", "-s", stolen, stolen)
    one.space(*claim, accept=(0, 1))
    assert packets_dropped(site.server, "bridge", "prerouting") > before
    neighbours = site.server.sh("ip neigh show dev ppnvm0")
    assert f"{stolen} lladdr {one.mac}" not in neighbours


def test_a_tap_without_a_record_is_silent(site: Site) -> None:
    """A VM whose sidecar is damaged leads nowhere and reaches nothing."""
    one = site.guest("one", ports=WEB)
    assert fetch(site.peer, MESH, one.host_port()) == "one"
    site.paths.vm("one").sidecar.write_text("{")
    site.synchronise()
    assert is_silent(site.peer, MESH, one.host_port())
    assert not one.space.reaches(GATEWAY, count=1, seconds=1)


def test_neighbours_do_not_hear_each_other(site: Site) -> None:
    """Not even where a tap's own isolation is not there: the bridge's rules stand alone."""
    one, two = site.guest("one"), site.guest("two")
    one.space.sh(f"ip neigh replace {two.lease.address} lladdr {two.mac} dev eth0")
    before = packets_dropped(site.server, "bridge", "forward")
    assert not one.space.reaches(two.lease.address, count=1, seconds=1)
    assert packets_dropped(site.server, "bridge", "forward") > before


def test_internet_is_for_those_who_have_it_and_public_addresses_alone(site: Site) -> None:
    """Not by default; where the node says so, behind its address, and never its neighbours."""
    one = site.guest("one")
    world = Namespace("world")
    try:
        connect(site.server, "203.0.113.1/24", world, "203.0.113.9/24")
        connect(site.server, "192.168.50.1/24", world, "192.168.50.9/24")
        world.sh("mkdir /run/www; echo hello > /run/www/index.html")
        serve(world, 8080, "/run/www")
        addresses = ("203.0.113.9", "192.168.50.9")
        assert all(fetch(site.server, address, 8080) == "hello" for address in addresses)
        assert all(is_silent(one.space, address, 8080) for address in addresses)
        site.configure(vm_internet=True)
        site.synchronise()
        # Masqueraded: the world knows no way to the guests' network.
        assert fetch(one.space, "203.0.113.9", 8080) == "hello"
        assert is_silent(one.space, "192.168.50.9", 8080)
        assert is_silent(one.space, PEER, 22) and is_silent(one.space, "203.0.113.1", 22)
        world.sh("ip route add 10.9.2.0/24 via 203.0.113.1")
        assert not world.reaches(one.lease.address, count=1, seconds=1)
    finally:
        world.end()


SEEN_BY = """
import socket, sys
with socket.create_server((sys.argv[1], 7070)) as listener:
    print("listening", flush=True)
    for _ in range(int(sys.argv[2])):
        with listener.accept()[0] as stream:
            print(stream.getpeername()[0], flush=True)
"""
ANNOUNCE = """
import socket
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("ppnvm0", 0))
mine = bytes.fromhex("0a70706e0001")
for to, kind in (("0180c200000e", 0x88CC), ("01005e0000fb", 0x0800), ("3333000000fb", 0x86DD),
                 ("ffffffffffff", 0x0800), ("ffffffffffff", 0x9999)):
    link.send(bytes.fromhex(to) + mine + kind.to_bytes(2, "big") + b"server says hello" * 4)
"""
HEAR = """
import os, socket
taps = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
taps.bind(("eth0", 0))
taps.settimeout(1)
print("hearing", flush=True)
heard, last = b"", False
while not last:
    # Until a second has passed in silence after all was announced.
    last = os.path.exists("/run/announced")
    try:
        while True:
            heard += taps.recv(65536)
    except TimeoutError:
        pass
print("hello" if b"hello" in heard else "nothing", flush=True)
"""


def test_a_guest_does_not_learn_who_calls(site: Site) -> None:
    """INV-03: a node of the mesh, and the guest's own node, are seen as the gateway."""
    one = site.guest("one", ports=[{"guest": 7070}])
    program = one.space.start("python3", "-c", SEEN_BY, one.lease.address, "2")
    assert program.process.stdout and program.process.stdout.readline() == "listening\n"
    for space in (site.peer, site.server):
        code = f"import socket; socket.create_connection(({MESH!r}, {one.host_port(7070)}), 25)"
        space("python3", "-c", code)
    assert program.process.communicate(timeout=120)[0].split() == [GATEWAY, GATEWAY]


def test_a_guest_does_not_hear_what_the_node_announces(site: Site) -> None:
    """INV-03: LLDP, mDNS over IPv4 and IPv6, broadcasts: they name the node."""
    one = site.guest("one")
    assert one.space.reaches(GATEWAY)

    def heard() -> str:
        one.space.sh("rm -f /run/announced")
        program = one.space.start("python3", "-c", HEAR)
        assert program.process.stdout and program.process.stdout.readline() == "hearing\n"
        site.server("python3", "-c", ANNOUNCE)
        one.space.sh("touch /run/announced")
        return str(program.process.communicate(timeout=120)[0]).strip()

    before = packets_dropped(site.server, "bridge", "output")
    assert heard() == "nothing"
    assert packets_dropped(site.server, "bridge", "output") > before
    site.server.sh("nft delete chain bridge ppn_vm output")
    assert heard() == "hello"
