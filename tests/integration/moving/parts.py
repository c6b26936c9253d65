"""Two whole nodes on loopback, and one or two controllers: everything of a move is real."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lab import guest
from ppn.errors import PpnError
from ppn.host.sidecar import Sidecar, read_sidecar
from ppn.wire.moving import MoveView
from tests.integration.agent.agents import Agent
from tests.integration.fleet.parts import Controller, free_port, is_open
from tests.integration.host.node import Node, wait_for
from tests.integration.proxy.parts import Authority

ORDER = {"owner": "acme", "image": "tiny", "vcpus": 2, "memory_mib": 256}
# A move of a small VM takes a few seconds; a guest under TCG on a busy machine takes more.
MOVE_SECONDS = 180.0


@dataclass
class Machine:
    """One hypervisor: its node, its agent and its proxy.

    Args:
        name: in the inventory.
        address: loopback, as its mesh address.
        node: its folders and its libvirt.
        agent: in a process of its own.
        proxy_words: how its proxy is started.
    """

    name: str
    address: str
    port: int
    node: Node
    agent: Agent
    proxy_words: list[str] = field(default_factory=list)
    proxy: subprocess.Popen[bytes] | None = None

    def start_proxy(self) -> None:
        """Start it and wait until it listens."""
        with (self.node.root / "proxy.log").open("ab") as log:
            self.proxy = subprocess.Popen(self.proxy_words, stderr=log)
        wait_for(f"the proxy of {self.name}", lambda: is_open(self.address, self.port))

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
            self.node.virsh("destroy", name) if self.runs(name) else None
            self.node.virsh("undefine", name)
        for folder in self.node.paths.vms.glob("*"):
            subprocess.run(["rm", "-rf", folder], check=True, timeout=60)


@dataclass
class Site:
    """Two machines and their controllers."""

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
        """Have a VM made on the first machine; its id.

        Placement chooses: the second is full meanwhile.
        """
        made = self.first.create(**{**ORDER, **order})
        assert made.status_code == 201, made.text
        return str(made.json()["vm"]["id"])

    def place(self, vm: str) -> Machine:
        """The machine whose libvirt runs the VM."""
        (found,) = [one for one in self.machines if one.runs(vm)]
        return found

    def other(self, one: Machine) -> Machine:
        """The other machine."""
        return self.b if one is self.a else self.a

    def ask(self, vm: str, node: str, controller: Controller | None = None) -> httpx.Response:
        """Ask for a move."""
        with (controller or self.first).client() as client:
            return client.post(f"/v1/vms/{vm}/move", json={"node": node})

    def told(self, vm: str, controller: Controller | None = None) -> dict[str, Any]:
        """How far a move is."""
        with (controller or self.first).client() as client:
            answer: dict[str, Any] = client.get(f"/v1/vms/{vm}/move").json()
            return answer

    def ended(self, vm: str, controller: Controller | None = None) -> dict[str, Any]:
        """How a move ended, once it has."""

        def look() -> dict[str, Any] | None:
            try:
                found = self.told(vm, controller)
            except httpx.HTTPError:
                return None
            return found if found.get("outcome", "going") != "going" else None

        found: dict[str, Any] = wait_for(f"the move of {vm}", look, MOVE_SECONDS)
        return found

    def able(self, vm: str) -> list[str]:
        """The machines whose disk lets them start the VM."""
        found = ((one, one.sidecar(vm)) for one in self.machines)
        return [one.name for one, sidecar in found if sidecar and sidecar.phase == "ready"]

    def clean(self, vm: str) -> bool:
        """Whether one machine has the VM, and the other nothing of it."""
        phases = sorted(
            sidecar.phase if sidecar is not None else ""
            for sidecar in (one.sidecar(vm) for one in self.machines)
        )
        return phases == ["", "ready"]


@contextmanager
def site(folder: Path, controllers: int = 1, **fleet: Any) -> Iterator[Site]:
    """Everything up and heard; everything ended with the block."""
    authority = Authority(folder)
    fleet_port, proxy_port = free_port(), free_port()
    addresses = [f"127.0.6.{number}" for number in range(1, controllers + 1)]
    image = guest.cached()
    with ExitStack() as stack:
        machines: list[Machine] = []
        for name, address in (("a", "127.0.5.1"), ("b", "127.0.5.2")):
            short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"ppn-{name}-")))
            machines.append(_machine(name, address, proxy_port, short, image, authority))
            daemon = machines[-1].node.start()
            stack.callback(machines[-1].node.stop, daemon)
        for one in machines:
            # The first call of a fresh libvirtd looks at QEMU for long.
            one.node.virsh("domcapabilities")
            one.agent.start(controllers=[f"http://{address}:{fleet_port}" for address in addresses])
            stack.callback(one.agent.end)
            one.start_proxy()
            stack.callback(one.end_proxy)
        started: list[Controller] = []
        for address in addresses:
            settings = {
                "name": f"controller-{address}",
                "address": address,
                "mesh_range": "10.8.0.0/24",
                "port": fleet_port,
                "nodes": [{"name": one.name, "address": one.address} for one in machines],
                "callers": ["127.0.0.1"],
                "controllers": [other for other in addresses if other != address],
                "node_proxy_port": proxy_port,
                "development": True,
                **fleet,
            }
            own = folder / address
            own.mkdir()
            files = authority.issue(f"controller-{address}", "controller", address=address)
            settings |= {"certificate": str(files.certificate), "trust": str(files.trust)}
            settings["journal"] = str(own / "intents.jsonl")
            started.append(Controller(own, settings, files))
            stack.callback(started[-1].end)
        made = Site(machines[0], machines[1], started)
        wait_for("both nodes", lambda: all(_heard(one) for one in started))
        yield made


def _heard(controller: Controller) -> bool:
    with controller.client() as client:
        return len(client.get("/v1/nodes").json()) == 2


def _machine(
    name: str, address: str, port: int, root: Path, image: Path, authority: Authority
) -> Machine:
    root.chmod(0o755)
    node = Node(root)
    node.prepare(image)
    node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
    node.paths.settings.write_text(json.dumps({"name": name, "memory_buffer_mib": 0}))
    own = authority.issue(name, "hypervisor", address=address)
    agent = Agent(node)
    agent.settings = {
        "node": name,
        "key": str(own.key),
        "certificate": str(own.certificate),
        "trust": str(own.trust),
    }
    settings = {
        "node": name,
        "listen": address,
        "port": port,
        "mesh_range": "10.8.0.0/24",
        "allowed": ["127.0.0.0/8"],
        "certificate": str(own.certificate),
        "trust": str(own.trust),
        "agent_socket": str(node.paths.agent_socket),
        "development": True,
    }
    config = root / "proxy.json"
    config.write_text(json.dumps(settings))
    words = ["-m", "ppn.host.proxy", "--key", str(own.key), "--settings", str(config)]
    return Machine(name, address, port, node, agent, [sys.executable, *words])
