"""Real VMs in their node's network: given, reached, changed and taken back."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from lab import guest
from ppn.host.model import Settings, VmView
from ppn.host.network import interface_of
from ppn.host.sidecar import read_sidecar
from ppn.mesh.firewall import ruleset
from ppn.run import run
from tests.integration.host import still
from tests.integration.host.node import Node, spec_text, wait_for
from tests.integration.host.test_trouble import apply_and_kill
from tests.integration.mesh.namespaces import Namespace
from tests.integration.network.conftest import MESH, PEER, RANGE, fetch, is_silent, serve
from tests.unit.mesh.pools import RELAY, SERVER, pool

WEB = [{"guest": 80}]


@dataclass
class Networked:
    """A hypervisor with a network for its VMs, and a mesh peer of it."""

    node: Node
    server: Namespace
    peer: Namespace

    def configure(self, **settings: Any) -> None:
        """Write the node's settings."""
        usual = {"name": "server", "mesh_address": MESH, "vm_range": RANGE}
        self.node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
        self.node.paths.settings.write_text(Settings(**(usual | settings)).model_dump_json())

    def view(self, name: str = "web") -> VmView:
        """A VM as the node shows it."""
        vm = VmView.model_validate(self.node.apply(name=name, ports=WEB)["vm"])
        assert vm.lease is not None
        return vm

    def traces(self) -> str:
        """All that the node's kernel holds in which a VM could appear."""
        return self.server.sh("ip -o link; nft list ruleset; ip neigh show nud all")


@pytest.fixture(scope="module")
def started() -> Iterator[Networked]:
    server, peer = Namespace("server"), Namespace("relay")
    enter = ("nsenter", "-t", str(server.pid), "-n", "--")
    with tempfile.TemporaryDirectory(prefix="ppn-net-") as root:
        found = Networked(Node(Path(root), enter), server, peer)
        found.node.prepare(guest.cached())
        (Path(root) / "proc/net").symlink_to("/proc/net")
        ends = f"link add ppn0 netns {server.pid} type veth peer name ppn0 netns {peer.pid}"
        run(["ip", *ends.split()], timeout=10)
        for space, address in ((server, MESH), (peer, PEER)):
            space.sh(f"ip addr add {address}/24 dev ppn0; ip link set ppn0 up")
        server.sh("echo 1 > /proc/sys/net/ipv4/conf/ppn0/forwarding")
        ours = replace(SERVER, ranges=(), vm_range=IPv4Network(RANGE))
        server("nft", "-f", "-", input=ruleset(pool(RELAY, ours), ours))
        daemon = found.node.start()
        try:
            yield found
        finally:
            found.node.stop(daemon)
            server.end()
            peer.end()


@pytest.fixture
def networked(started: Networked) -> Iterator[Networked]:
    started.configure()
    yield started
    for vm in started.node.state().vms:
        started.node.apply(name=vm.name, state="absent")
    assert started.node.nothing_is_left()


def answer(found: Networked, vm: VmView) -> str:
    """What the guest says at its host port to a mesh peer."""
    assert vm.lease is not None
    return fetch(found.peer, MESH, vm.lease.ports[0].host)


def test_spawned_vm_is_reached_at_its_port_and_leaves_nothing(networked: Networked) -> None:
    """IP-01, IP-02: no step but its creation; after its removal no tap, rule or port."""
    node = networked.node
    reach = f"ppn.reach={PEER}:8080"
    serve(networked.peer, 8080, "/run")
    done = node.apply(ports=WEB, cmdline_extra=reach)
    vm = VmView.model_validate(done["vm"])
    assert vm.lease is not None and vm.uuid is not None
    port = vm.lease.ports[0]
    boot = node.wait_ready("web")["boot_id"]
    assert fetch(networked.peer, MESH, port.host) == f"ppn-guest boot_id={boot}"
    assert fetch(networked.server, MESH, port.host) == f"ppn-guest boot_id={boot}"
    assert f"ppn-guest network address={vm.lease.address}/24" in node.serial("web")
    # The guest answers; it opens nothing, though somebody is there.
    assert fetch(networked.server, PEER, 8080) != ""
    said = wait_for("a try", lambda: "ppn-guest reach" in node.serial("web"))
    assert said and "answer=yes" not in node.serial("web")
    interface = interface_of(vm.uuid)
    assert "isolated on" in networked.server.sh(f"ip -d link show {interface.tap}")
    again = node.apply(ports=WEB, cmdline_extra=reach)
    assert not again["changed"]
    shown = node.ppn("host", "state").stdout
    assert RANGE in shown
    node.apply(state="absent")
    traces = networked.traces()
    for text in (interface.tap, interface.mac, f"{vm.lease.address} ", str(port.host)):
        assert text not in traces
    assert is_silent(networked.peer, MESH, port.host)


def test_address_and_port_are_kept_for_life_and_ports_change_live(networked: Networked) -> None:
    """IP-01: over a stop and a start; a change of ports leaves QEMU as it is."""
    node = networked.node
    first = networked.view()
    assert first.lease is not None
    node.wait_ready("web")
    node.apply(ports=WEB, state="stopped")
    second = networked.view()
    assert second.lease == first.lease
    boot = node.wait_ready("web", boots=2)["boot_id"]
    assert boot in answer(networked, second)
    moved = node.apply(ports=[{"guest": 80, "host": 30080}, {"guest": 53, "protocol": "udp"}])
    assert "give vm web its address and ports" in moved["actions"]
    assert moved["vm"]["pid"] == second.pid
    assert boot in fetch(networked.peer, MESH, 30080)
    assert second.lease is not None
    assert is_silent(networked.peer, MESH, second.lease.ports[0].host)
    sidecar = read_sidecar(node.paths.vm("web").sidecar)
    assert sidecar is not None and sidecar.lease is not None
    assert sidecar.lease.ports[0].host == 30080
    # A port that may be any stays what it is.
    same = node.apply(ports=[{"guest": 80}, {"guest": 53, "protocol": "udp"}])
    assert same["vm"]["lease"] == sidecar.lease.model_dump(mode="json")


def test_what_cannot_be_had_is_refused_and_leaves_nothing(networked: Networked) -> None:
    """IP-01: a clean failure each, with nothing left of the VM."""
    node = networked.node
    networked.configure(port_first=30000, port_last=30001)
    serve(networked.server, 30000, "/run")
    one = node.apply(name="one", state="stopped", ports=WEB, address="10.9.2.9")["vm"]["lease"]
    assert one["ports"][0]["host"] == 30001
    for spec, code in (
        ({"ports": WEB}, "ports_exhausted"),
        ({"ports": [{"guest": 80, "host": 30000}]}, "port_taken"),
        ({"ports": [{"guest": 80, "host": 30001}]}, "port_taken"),
        ({"ports": [{"guest": 80, "host": 9204}]}, "port_outside"),
        ({"address": "10.9.2.9"}, "address_taken"),
        ({"address": "10.9.2.1"}, "address_outside"),
        ({"address": "10.9.3.9"}, "address_outside"),
    ):
        assert node.refused(name="two", state="stopped", **spec)["code"] == code
    assert [vm.name for vm in node.state().vms] == ["one"]


def test_a_node_without_a_network_gives_none(networked: Networked) -> None:
    """And what cannot be given is refused."""
    networked.configure(vm_range=None)
    assert networked.node.refused(ports=WEB)["code"] == "network_missing"
    assert networked.node.apply(state="stopped")["vm"]["lease"] is None


def test_killed_applies_leave_no_rule_of_their_own(networked: Networked) -> None:
    """IP-01: cut at random points, and repeated: one lease, in force; then none, and no trace."""
    node, chance = networked.node, random.Random(os.environ.get("PPN_TEST_SEED", "1"))
    order = {"image": still.NAME, "ports": WEB}
    begun = time.monotonic()
    node.apply(**order)
    whole = time.monotonic() - begun
    node.apply(state="absent")
    for _ in range(5):
        apply_and_kill(node, spec_text(order), chance.uniform(0.2, 1.1) * whole)
        vm = VmView.model_validate(node.apply(**order)["vm"])
        assert vm.lease is not None and vm.uuid is not None
        ports = networked.server.sh("nft list map inet ppn_vm ports")
        assert ports.count(" : ") == 2, ports
        assert f"tcp . {vm.lease.ports[0].host} : {vm.lease.address} . 80" in ports
        gone = spec_text({"state": "absent"})
        apply_and_kill(node, gone, chance.uniform(0.2, 1.1) * whole)
        node.apply(state="absent")
        traces = networked.traces()
        for text in (interface_of(vm.uuid).tap, f"{vm.lease.address} "):
            assert text not in traces


def test_cloud_init_takes_all_from_the_seed(networked: Networked, tmp_path: Path) -> None:
    """HOST-03, IP-02: a real Debian guest; a mesh peer logs in to it with no further step."""
    node, key = networked.node, tmp_path / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], timeout=30)
    if not node.paths.image("debian").exists():
        node.paths.image("debian").symlink_to(guest.cached_debian())
    done = node.apply(
        name="debian",
        image="debian",
        memory_mib=768,
        disk_gib=4,
        hostname="seeded-name",
        ssh_keys=[key.with_suffix(".pub").read_text().strip()],
        user_data={"runcmd": [["touch", "/run/seeded"]]},
        ports=[{"guest": 22}],
    )
    vm = VmView.model_validate(done["vm"])
    assert vm.lease is not None
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    words = ["timeout", "50", "ssh", "-F", "/dev/null", "-i", str(key)]
    words += ["-p", str(vm.lease.ports[0].host)]
    words += [word for option in options for word in ("-o", option)]
    # SSH is there before cloud-init has come to its last step, and each login costs it seconds.
    waiting = "timeout 45 sh -c 'until [ -e /run/seeded ]; do sleep 1; done' && hostname"
    words += [f"debian@{MESH}", waiting]

    def name() -> str:
        said = networked.peer(*words, accept=(0, 1, 124, 255)).stdout.strip()
        time.sleep(2)
        return said

    assert wait_for("a login", name, seconds=1500) == "seeded-name"
