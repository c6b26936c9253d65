"""A pool on loopback: real controllers and node proxies, and agents that only count VMs.

The agent is a stand-in here, for what is tested is the controller: what it decides, what it
survives. The real agent has its own tests, and the lab has all of them together.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ppn.pool.tls import TlsFiles
from tests.integration.fleet.edges import Door, Running, answering, beating, context, free_port
from tests.integration.fleet.node import Node
from tests.integration.proxy.parts import Authority, wait_for
from tests.logged import logged

ORDER = {"owner": "acme", "image": "tiny", "vcpus": 2, "memory_mib": 256}


@dataclass
class Controller(Running):
    """A controller in a process of its own.

    Args:
        folder: takes its files.
        settings: what it is told.
        files: its client certificate.
    """

    folder: Path
    settings: dict[str, Any]
    files: TlsFiles

    def __post_init__(self) -> None:
        self.url = f"http://{self.settings['address']}:{self.settings['port']}"
        self.log = self.folder / "controller.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        (self.folder / "fleet.json").write_text(json.dumps(self.settings))
        words = ["--key", str(self.files.key), "--settings", str(self.folder / "fleet.json")]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ppn.fleet", *words], stderr=log, stdout=log
            )

        def answers() -> bool:
            assert process.poll() is None, self.log.read_text()
            try:
                with self.client() as client:
                    return client.get("/v1/fleet").is_success
            except httpx.HTTPError:
                return False

        wait_for(answers, "the controller")
        return process

    def client(self, source: str = "127.0.0.1", timeout: float = 60) -> httpx.Client:
        """An HTTP client at an address."""
        transport = httpx.HTTPTransport(verify=context(), local_address=source)
        return httpx.Client(base_url=self.url, transport=transport, timeout=timeout)

    def create(self, key: str | None = None, **order: Any) -> httpx.Response:
        """Ask for a VM."""
        headers = {"Idempotency-Key": key} if key else {}
        with self.client() as client:
            return client.post("/v1/vms", json={**ORDER, **order}, headers=headers)

    def vms(self, **query: str) -> dict[str, str]:
        """The node of each VM."""
        with self.client() as client:
            listed = client.get("/v1/vms", params=query).json()
        return {placed["vm"]["id"]: placed["node"] for placed in listed}

    def start_again(self, **settings: Any) -> None:
        """Start it anew with the files it left.

        Args:
            settings: what it is told otherwise from now on.
        """
        self.settings |= settings
        self.process = self._start()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one event."""
        return logged(self.log, event=event)


@dataclass(frozen=True)
class Outside:
    """A node whose agent is none of ours.

    Args:
        name: in the inventory.
        address: its heartbeats come from.
        agent: the agent's socket.
    """

    name: str
    address: str
    agent: Path


@dataclass
class Pool:
    """Controllers and nodes of a test, and the node proxies by node."""

    controllers: list[Controller]
    nodes: list[Node]
    doors: dict[str, Door]

    @property
    def first(self) -> Controller:
        """The first controller."""
        return self.controllers[0]

    def reset(self) -> None:
        """Empty every node, and let every controller know."""
        for node in self.nodes:
            node.empty()
            node.beat()

    def held(self) -> dict[str, list[str]]:
        """On which nodes each VM really is."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            with node.lock:
                for vm in node.vms:
                    found.setdefault(vm, []).append(node.name)
        return found


@contextmanager
def pool(
    folder: Path, nodes: list[Node], controllers: int = 1, *, outside: Sequence[Outside] = ()
) -> Iterator[Pool]:
    """Everything up and heard; everything ended with the block.

    Args:
        folder: takes all files.
        nodes: those with a stand-in for an agent.
        controllers: how many.
        outside: nodes whose agent somebody else starts, and tells of the controllers.
    """
    authority = Authority(folder)
    fleet_port, proxy_port = free_port(), free_port()
    doors: dict[str, Door] = {}
    known = [(one.name, one.address) for one in nodes]
    known += [(one.name, one.address) for one in outside]
    with ExitStack() as stack:

        def open_door(name: str, address: str, agent: Path) -> None:
            own = authority.issue(name, "hypervisor", address=address)
            doors[name] = Door(folder, name, address, proxy_port, agent, own)
            stack.callback(doors[name].end)

        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ppn-fleet-")))
        for node in nodes:
            path = short / f"{node.name}.sock"
            stack.enter_context(answering(path, node.answer))
            open_door(node.name, node.address, path)
            stack.enter_context(beating(node.beat))
        for other in outside:
            open_door(other.name, other.address, other.agent)
        addresses = [f"127.0.2.{number}" for number in range(1, controllers + 1)]
        common = {
            "port": fleet_port,
            "node_proxy_port": proxy_port,
            "nodes": [{"name": name, "address": at} for name, at in known],
        }
        started: list[Controller] = []
        for address in addresses:
            started.append(_controller(folder, authority, address, addresses, common))
            stack.callback(started[-1].end)
        for node in nodes:
            node.controllers = [controller.url for controller in started]
            node.beat()
        yield Pool(started, nodes, doors)


def _controller(
    folder: Path, authority: Authority, address: str, addresses: list[str], common: dict[str, Any]
) -> Controller:
    """One of the controllers at some addresses, with what they all are told."""
    own = folder / address
    own.mkdir()
    files = authority.issue(f"controller-{addresses.index(address)}", "controller", address=address)
    settings = {
        **common,
        "name": f"controller-{address}",
        "address": address,
        "mesh_range": "10.8.0.0/24",
        "callers": ["127.0.0.1"],
        "controllers": [other for other in addresses if other != address],
        "journal": str(own / "intents.jsonl"),
        "request_seconds": 20,
        "development": True,
        "certificate": str(files.certificate),
        "trust": str(files.trust),
    }
    return Controller(own, settings, files)
