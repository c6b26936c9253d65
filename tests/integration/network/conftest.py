"""A server, a mesh peer and guests, each a namespace; the rules and the bridge are real.

The guests' ends on the server have the names their taps would have, so that the rules cannot tell
them from VMs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ppn.host.lease import Lease
from ppn.host.model import Settings
from ppn.host.network import choose_lease, interface_of, node_network
from ppn.host.paths import Paths
from ppn.host.sidecar import Sidecar, write_sidecar
from ppn.mesh.firewall import ruleset
from ppn.run import run
from tests.integration.mesh.namespaces import Namespace, wait_for
from tests.unit.host.builders import make_spec
from tests.unit.mesh.pools import RELAY, SERVER, pool

RANGE = "10.9.2.0/24"
GATEWAY = "10.9.2.1"
MESH = "10.8.0.2"
PEER = "10.8.0.1"
FETCH = """import socket, sys
address, port, seconds = sys.argv[1:]
with socket.create_connection((address, int(port)), timeout=float(seconds)) as stream:
    stream.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(stream.makefile(newline=None).read(), end="")
"""
NETWORK_COMMAND = (
    sys.executable,
    "-c",
    "from ppn.cli.host import host_app; host_app()",
    "network",
)


@dataclass
class Guest:
    """A namespace in a VM's place, with a web server that says the VM's name."""

    name: str
    space: Namespace
    lease: Lease
    tap: str
    mac: str

    def host_port(self, guest_port: int = 80) -> int:
        """The server's port that leads to one of the guest's."""
        return next(port.host for port in self.lease.ports if port.guest == guest_port)


@dataclass
class Site:
    """The server with its folder, and who is around it."""

    root: Path
    server: Namespace
    peer: Namespace
    guests: list[Guest] = field(default_factory=list)

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def configure(self, **settings: Any) -> None:
        """Write the server's settings."""
        usual = {"name": "server", "mesh_address": MESH, "vm_range": RANGE}
        self.paths.settings.parent.mkdir(parents=True, exist_ok=True)
        self.paths.settings.write_text(Settings(**(usual | settings)).model_dump_json())

    def synchronise(self) -> str:
        """Run `ppn host network` on the server."""
        return self.server("env", f"PPN_ROOT={self.root}", *NETWORK_COMMAND).stdout

    def record(self, name: str, **fields: Any) -> tuple[Lease, str]:
        """Write a VM's sidecar as its creation does; returns its lease and its identity."""
        spec = make_spec(name=name, **fields)
        network = node_network(Settings.model_validate_json(self.paths.settings.read_bytes()))
        assert network is not None
        lease = choose_lease(spec, network, [guest.lease for guest in self.guests], None)
        uuid = str(uuid4())
        sidecar = Sidecar(uuid=uuid, created="now", phase="ready", spec=spec, lease=lease)
        self.paths.vm(name).folder.mkdir(parents=True)
        write_sidecar(self.paths.vm(name).sidecar, sidecar)
        return lease, uuid

    def plug(self, name: str, lease: Lease, uuid: str) -> Guest:
        """Start a guest and plug it in, as libvirt does a VM."""
        interface = interface_of(uuid)
        space = Namespace(name)
        guest = Guest(name, space, lease, interface.tap, interface.mac)
        self.guests.append(guest)
        ends = f"link add {guest.tap} netns {self.server.pid} type veth peer name eth0"
        run(["ip", *ends.split(), "address", guest.mac, "netns", str(space.pid)], timeout=10)
        self.server.sh(f"ip link set {guest.tap} master ppnvm0 up")
        space.sh(
            f"ip addr add {lease.address}/24 dev eth0; ip link set eth0 up;"
            f" ip route add default via {GATEWAY};"
            f" mkdir /run/www; echo {name} > /run/www/index.html"
        )
        serve(space, 80, "/run/www")
        return guest

    def guest(self, name: str, **fields: Any) -> Guest:
        """A VM with its record, its rules and its guest."""
        lease, uuid = self.record(name, **fields)
        self.synchronise()
        return self.plug(name, lease, uuid)


def serve(space: Namespace, port: int, folder: str) -> None:
    """Start a web server on every address of a namespace."""
    space.start("python3", "-IS", "-m", "http.server", "-d", folder, str(port))
    wait_for(lambda: f":{port} " in space.sh("ss -Hltn"), 120, f"{space.name} listens")


def fetch(space: Namespace, address: str, port: int, seconds: float = 25) -> str:
    """What a web server answers; empty when nothing does in time."""
    words = (address, str(port), str(seconds))
    answer = space("python3", "-IS", "-c", FETCH, *words, accept=(0, 1)).stdout
    return answer.rpartition("\n\n")[2].strip()


def is_silent(space: Namespace, address: str, port: int) -> bool:
    """Whether no web server answers within 2 s."""
    return fetch(space, address, port, 2) == ""


def packets_dropped(server: Namespace, family: str, chain: str) -> int:
    """The sum of all drop counters of one chain of the VM network's rules."""
    lines = server.sh(f"nft list chain {family} ppn_vm {chain}").splitlines()
    return sum(int(line.split("packets ")[1].split()[0]) for line in lines if "drop" in line)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    server, peer = Namespace("server"), Namespace("relay")
    found = Site(tmp_path, server, peer)
    try:
        ends = f"link add ppn0 netns {server.pid} type veth peer name ppn0 netns {peer.pid}"
        run(["ip", *ends.split()], timeout=10)
        for space, address in ((server, MESH), (peer, PEER)):
            space.sh(f"ip addr add {address}/24 dev ppn0; ip link set ppn0 up")
        # What wg-quick does for a node with guests, and the mesh's own rules.
        server.sh("echo 1 > /proc/sys/net/ipv4/conf/ppn0/forwarding")
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/net").symlink_to("/proc/net")
        ours = replace(SERVER, ranges=(), vm_range=IPv4Network(RANGE))
        server("nft", "-f", "-", input=ruleset(pool(RELAY, ours), ours))
        found.configure()
        yield found
    finally:
        for space in (server, peer, *(guest.space for guest in found.guests)):
            space.end()
