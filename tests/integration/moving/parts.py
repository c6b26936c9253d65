"""Two whole nodes and their controllers, each in a network namespace: everything of a move is real.

a  10.8.0.2 --+
              +-- hub: controllers at 10.8.0.1 and 10.8.0.4
b  10.8.0.3 --+
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lab import guest
from ppn.host.moving.policy import can_run
from ppn.host.moving.vouching import RECEIVER
from ppn.host.sidecar import Sidecar, read_sidecar
from ppn.pool.tls import TlsFiles
from ppn.run import run
from ppn.wire.moving import MoveView
from tests.integration.agent.agents import Agent
from tests.integration.host.node import Node, wait_for
from tests.integration.mesh.namespaces import Namespace
from tests.integration.moving.controllers import (
    CONTROLLERS,
    FLEET_PORT,
    NODES,
    Controller,
    enter,
    joins,
)
from tests.integration.proxy.parts import Authority

# One virtual CPU: QEMU dies now and then when it emulates several.
ORDER = {"owner": "acme", "image": "tiny", "vcpus": 1, "memory_mib": 256}
PROXY_PORT = 9204
MIB = 1024 * 1024
BASE_MIB = 24
# The folder of VMs is a file system of its own, whose limits a test may change.
LIMITS = "mode=711,size=16g"
# A guest under emulation on a busy machine takes its time.
MOVE_SECONDS = 240.0
HUB = """ip link add mesh type bridge
ip address add 10.8.0.1/24 dev mesh
ip address add 10.8.0.4/24 dev mesh
ip link set mesh up
"""


@dataclass
class Machine:
    """One hypervisor: its node, its agent and its proxy.

    Args:
        name: in the inventory.
        space: its network.
        node: its folders and its libvirt.
        agent: in a process of its own.
        words: how its proxy is started.
    """

    name: str
    space: Namespace
    node: Node
    agent: Agent
    words: list[str] = field(default_factory=list)
    proxy: subprocess.Popen[bytes] | None = None

    def start_proxy(self) -> None:
        """Start it and wait until it listens."""
        with (self.node.root / "proxy.log").open("ab") as log:
            self.proxy = subprocess.Popen([*self.node.enter, *self.words], stderr=log)
        listening = f"ss -Hltn sport = :{PROXY_PORT}"
        wait_for(f"the proxy of {self.name}", lambda: self.space.sh(listening))

    def end_proxy(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal."""
        if self.proxy is not None:
            self.proxy.send_signal(number)
            self.proxy.wait(30)
            self.proxy = None

    def sidecar(self, vm: str) -> Sidecar | None:
        """What the node's disk says of a VM."""
        return read_sidecar(self.node.paths.vm(vm).sidecar)

    def view(self, vm: str) -> MoveView:
        """How far its agent is with the move of a VM."""
        return MoveView.model_validate(self.agent.do("show_move", vm=vm), strict=False)

    def runs(self, vm: str) -> bool:
        """Whether libvirt runs the VM."""
        return vm in self.node.virsh("list", "--name").split()

    def clear(self) -> None:
        """Remove every VM, whatever it is in."""
        for name in self.node.domains():
            if self.runs(name):
                self.node.virsh("destroy", name)
            self.node.virsh("undefine", name)
        for folder in self.node.paths.vms.glob("*"):
            subprocess.run(["rm", "-rf", folder], check=True, timeout=60)


@dataclass
class Site:
    """Two machines and their controllers."""

    hub: Namespace
    a: Machine
    b: Machine
    controllers: list[Controller]

    @property
    def first(self) -> Controller:
        """The first controller."""
        return self.controllers[0]

    @property
    def machines(self) -> tuple[Machine, Machine]:
        """Both."""
        return self.a, self.b

    def create(self, **order: Any) -> str:
        """Have a VM made and wait until its guest is up; its id."""
        vm = self.make(**order)
        self.place(vm).node.wait_ready(vm)
        return vm

    def make(self, **order: Any) -> str:
        """Have a VM made; its id."""
        made = self.first.ask("POST", "/vms", {**ORDER, **order})
        assert made.status_code == 201, made.text
        return str(made.json()["vm"]["id"])

    def place(self, vm: str) -> Machine:
        """The machine whose libvirt runs the VM."""
        (found,) = [one for one in self.machines if one.runs(vm)]
        return found

    def other(self, one: Machine) -> Machine:
        """The other machine."""
        return self.b if one is self.a else self.a

    def ask(self, vm: str, node: str) -> httpx.Response:
        """Ask the first controller for a move."""
        return self.first.ask("POST", f"/vms/{vm}/move", {"node": node})

    def refused(self, vm: str, node: str) -> dict[str, Any]:
        """The refusal of a move."""
        answer = self.ask(vm, node)
        assert answer.status_code >= 400, answer.text
        problem: dict[str, Any] = answer.json()
        return problem

    def begin(self, vm: str, node: str) -> None:
        """Have a move begin."""
        answer = self.ask(vm, node)
        assert answer.status_code == 202, answer.text

    def told(self, vm: str, controller: Controller | None = None) -> dict[str, Any]:
        """How far a move is; empty while nobody says."""
        with suppress(httpx.HTTPError):
            found: dict[str, Any] = (controller or self.first).ask("GET", f"/vms/{vm}/move").json()
            return found
        return {}

    def ended(self, vm: str) -> dict[str, Any]:
        """How a move ended, once it has, and nothing is left to remove either."""

        def look() -> dict[str, Any] | None:
            self.check(vm)
            found = self.told(vm)
            whole = found.get("outcome", "going") != "going" and self.clean(vm)
            return found if whole else None

        found: dict[str, Any] = wait_for(f"the move of {vm}", look, MOVE_SECONDS)
        return found

    def reaches(self, vm: str, stage: str) -> None:
        """Wait until a move is at a stage, or was and has ended."""

        def is_there() -> bool:
            found = self.told(vm)
            return found.get("stage") == stage or found.get("outcome") != "going"

        wait_for(f"stage {stage}", is_there, MOVE_SECONDS)

    def check(self, vm: str) -> None:
        """Refuse to go on when both nodes could run a VM, or both do (MIG-01)."""
        sidecars = [one.sidecar(vm) for one in self.machines]
        able = [one for one in sidecars if can_run(one)]
        assert len(able) <= 1, sidecars
        assert sum(one.runs(vm) for one in self.machines) <= 1

    def clean(self, vm: str) -> bool:
        """Whether one machine has the VM for its own, and the other nothing of it."""
        sidecars = [one.sidecar(vm) for one in self.machines]
        return sorted(one.phase if one is not None else "" for one in sidecars) == ["", "ready"]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Let nothing pass between the two nodes; both still reach the hub."""
        links = [f"bridge link set dev v{name} isolated" for name in NODES]
        self.hub.sh(" && ".join(f"{link} on" for link in links))
        try:
            yield
        finally:
            self.hub.sh(" && ".join(f"{link} off" for link in links))

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Let a VM's disks take most of a minute, so that a test can act in their midst."""
        for one in self.machines:
            one.space.sh("tc qdisc add dev ppn0 root tbf rate 6mbit burst 64kb latency 1s")
        try:
            yield
        finally:
            for one in self.machines:
                one.space.sh("tc qdisc del dev ppn0 root")


@contextmanager
def site(folder: Path, **fleet: Any) -> Iterator[Site]:
    """Everything up and heard; everything ended with the block."""
    authority = Authority(folder)
    with ExitStack() as stack:
        hub = _space(stack, "hub")
        hub.sh(HUB)
        found = [_machine(stack, hub, name, authority) for name in NODES]
        reach = stack.enter_context(ThreadPoolExecutor(4, initializer=joins(hub)))
        started: list[Controller] = []
        for number, address in enumerate(CONTROLLERS):
            settings = {
                "name": f"controller-{number}",
                "address": address,
                "mesh_range": "10.8.0.0/24",
                "nodes": [{"name": name, "address": NODES[name]} for name in NODES],
                "callers": ["10.8.0.1"],
                "controllers": [other for other in CONTROLLERS if other != address],
                "journal": str(folder / address / "intents.jsonl"),
                **fleet,
            }
            (folder / address).mkdir()
            files = authority.issue(settings["name"], "controller", address=address)
            settings |= {"certificate": str(files.certificate), "trust": str(files.trust)}
            started.append(Controller(folder / address, hub, settings, files, reach))
            stack.callback(started[-1].kill)
            started[-1].start()
        yield Site(hub, found[0], found[1], started)


def _space(stack: ExitStack, name: str) -> Namespace:
    space = Namespace(name)
    stack.callback(space.end)
    return space


def _machine(stack: ExitStack, hub: Namespace, name: str, authority: Authority) -> Machine:
    space, address = _space(stack, name), NODES[name]
    cable = f"link add v{name} netns {hub.pid} type veth peer name ppn0 netns {space.pid}"
    run(["ip", *cable.split()], timeout=10)
    hub.sh(f"ip link set v{name} master mesh up")
    space.sh(f"ip address add {address}/24 dev ppn0; ip link set ppn0 up")
    space.sh("echo 1 > /proc/sys/net/ipv4/conf/ppn0/forwarding")
    # The path of a Unix socket has at most 107 characters.
    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"ppn-{name}-")))
    node = Node(root, tuple(enter(space)))
    node.prepare(guest.cached())
    _make_based(node)
    (root / "proc/net").symlink_to("/proc/net")
    node.paths.vms.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", LIMITS, "tmpfs", node.paths.vms], timeout=30)
    stack.callback(run, ["umount", "--lazy", node.paths.vms], timeout=30)
    node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"name": name, "mesh_address": address}
    settings |= {"vm_range": f"10.9.{address[-1]}.0/24"}
    node.paths.settings.write_text(
        json.dumps({**settings, "memory_buffer_mib": 0, "allow_odd_vcpus": True})
    )
    stack.callback(node.stop, node.start())
    # The first call of a fresh libvirtd looks at QEMU for long.
    node.virsh("domcapabilities")
    own = authority.issue(name, "hypervisor", address=address)
    agent = Agent(node)
    tls = {"key": str(own.key), "certificate": str(own.certificate), "trust": str(own.trust)}
    alone = authority.issue(name, RECEIVER, address=address)
    tls |= {"own_key": str(alone.key), "own_certificate": str(alone.certificate)}
    agent.start(**tls, node=name, controllers=[f"http://{one}:{FLEET_PORT}" for one in CONTROLLERS])
    stack.callback(agent.end)
    machine = Machine(name, space, node, agent, _proxy_words(node, name, address, own))
    machine.start_proxy()
    stack.callback(machine.end_proxy)
    return machine


def _make_based(node: Node) -> None:
    """An image whose disks are read from a base, beside the tiny one that has none."""
    tiny, image = node.paths.image("tiny"), node.paths.image("based")
    image.mkdir()
    for name in ("kernel", "initrd"):
        (image / name).symlink_to((tiny / name).resolve())
    raw, base = node.root / "base.raw", image / "disk.qcow2"
    # What a base holds, and so much of it that a move takes long enough to be disturbed.
    raw.write_bytes(b"\x5a" * MIB + random.Random(1).randbytes(BASE_MIB * MIB))
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base], timeout=60)
    raw.unlink()
    manifest = json.loads((tiny / "manifest.json").read_text())
    manifest |= {"name": "based", "disk": base.name, "sha256": {}}
    (image / "manifest.json").write_text(json.dumps(manifest))


def _proxy_words(node: Node, name: str, address: str, own: TlsFiles) -> list[str]:
    settings = {
        "node": name,
        "listen": address,
        "mesh_range": "10.8.0.0/24",
        "allowed": ["10.8.0.0/24"],
        "certificate": str(own.certificate),
        "trust": str(own.trust),
        "agent_socket": str(node.paths.agent_socket),
    }
    config = node.root / "proxy.json"
    config.write_text(json.dumps(settings))
    words = ["-m", "ppn.host.proxy", "--key", str(own.key), "--settings", str(config)]
    return [sys.executable, *words]
