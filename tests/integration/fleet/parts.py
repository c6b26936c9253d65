"""A pool on loopback: real controllers and node proxies, and agents that only count VMs.

The agent is a stand-in here, for what is tested is the controller: what it decides, what it
survives. The real agent has its own tests, and the lab has all of them together.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from ppn.errors import PpnError, Refusal
from ppn.pool.tls import TlsFiles
from ppn.wire.problems import problem_of
from tests.integration.fleet.edges import (
    Door,
    Running,
    answering,
    beating,
    context,
    free_port,
    send,
)
from tests.integration.proxy.parts import Authority, wait_for
from tests.logged import logged

# Questions that a stand-in has no answer to.
UNTOLD = frozenset({"console", "inspect", "show_move", "timeline"})
ORDER = {"owner": "acme", "image": "tiny", "vcpus": 2, "memory_mib": 256}


@dataclass
class Node:
    """One node: its VMs, and what it is told to do wrong.

    Args:
        name: in the inventory.
        address: loopback, as its mesh address.
        vcpus: CPUs its VMs may have.
        reserved: kept for its own user.
        delay: seconds a spawn takes, unless it is released before.
        lose_answers: so many spawns are carried out and never answered.
        refuse: the code of the refusal of every spawn; empty for none.
    """

    name: str
    address: str
    vcpus: int = 8
    reserved: bool = False
    delay: float = 0.0
    lose_answers: int = 0
    refuse: str = ""
    session: str = field(default_factory=lambda: secrets.token_hex(16))
    vms: dict[str, dict[str, Any]] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    seen: list[dict[str, Any]] = field(default_factory=list)
    sequence: int = 0
    silent: bool = False
    most_vcpus: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.released = threading.Event()
        self.controllers: list[str] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """What the agent answers; None for a line that is cut."""
        body = request["body"]
        self.seen.append(request)
        try:
            result = self._do(body, request.get("ticket"))
        except PpnError as error:
            problem = problem_of(error).model_dump(mode="json")
            return {"correlation_id": request["correlation_id"], "problem": problem}
        self.beat()
        if body["operation"] == "spawn" and self.lose_answers > 0:
            self.lose_answers -= 1
            return None
        return {"correlation_id": request["correlation_id"], "result": result}

    def changes(self) -> int:
        """How often its agent was asked to change something."""
        return sum(one.get("ticket") is not None for one in self.seen)

    def has_seen_more(self, count: int) -> bool:
        """Whether its agent was asked for changes more often than so many times."""
        return self.changes() > count

    def _do(self, body: dict[str, Any], ticket: dict[str, Any] | None) -> dict[str, Any]:
        name = body["vm"] if isinstance(body.get("vm"), str) else body["vm"]["name"]
        if body["operation"] == "show":
            return {"vm": self._known(name)}
        if body["operation"] in UNTOLD:
            raise Refusal(f"vm {name}", code="vm_unknown", constraint="known VM")
        with self.lock:
            assert ticket is not None
            if (ticket["node"], ticket["session"]) != (self.name, self.session):
                raise Refusal("old", code="ticket_refused", constraint="placement ticket")
            assert ticket["nonce"] not in self.nonces, "a ticket was used twice"
            self.nonces.add(ticket["nonce"])
            if body["operation"] == "spawn":
                report = self._admit(body["vm"])
            elif body["operation"] == "destroy":
                if name in self.vms and body.get("uuid") != self.vms[name]["uuid"]:
                    raise Refusal(name, code="vm_replaced", constraint="UUID of the VM")
                self.vms.pop(name, None)
                return {"changed": True, "vm": None}
            else:
                report = self._known(name)
            if body["operation"] == "resize":
                figures = {figure: body.get(figure) for figure in ("memory_mib", "vcpus")}
                report.update({name: value for name, value in figures.items() if value is not None})
        if report["state"] == "creating":
            self.released.wait(self.delay)
            report["state"] = "running"
        return {"changed": True, "vm": report}

    def _known(self, name: str) -> dict[str, Any]:
        if name not in self.vms:
            raise Refusal(f"vm {name}", code="vm_unknown", constraint="known VM")
        return self.vms[name]

    def _admit(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self.refuse:
            raise Refusal("told to refuse", code=self.refuse, constraint="the test")
        if spec["name"] in self.vms:
            return self.vms[spec["name"]]
        used = sum(vm["vcpus"] for vm in self.vms.values())
        if used + spec["vcpus"] > self.vcpus:
            raise Refusal(
                "full",
                code="vcpus_exhausted",
                constraint="CPUs",
                wanted=spec["vcpus"],
                free=self.vcpus - used,
            )
        self.most_vcpus = max(self.most_vcpus, used + spec["vcpus"])
        self.vms[spec["name"]] = {
            "id": spec["name"],
            "owner": spec["owner"],
            "state": "creating",
            "uuid": str(uuid4()),
            "created": "2026-01-01T00:00:00+00:00",
            "image": spec["image"],
            "label": spec.get("label", ""),
            "vcpus": spec["vcpus"],
            "memory_mib": spec["memory_mib"],
            "minimum_mib": spec["memory_mib"],
            "disk_gib": spec.get("disk_gib", 1),
        }
        return self.vms[spec["name"]]

    def heartbeat(self) -> dict[str, Any]:
        """What it says of itself now."""
        with self.lock:
            self.sequence += 1
            # A copy: a test takes VMs away without asking for the lock.
            vms = [dict(vm) for vm in tuple(self.vms.values())]
            used = sum(vm["vcpus"] for vm in vms)
            memory = sum(vm["memory_mib"] for vm in vms)
            return {
                "version": 1,
                "node": self.name,
                "session": self.session,
                "sequence": self.sequence,
                "reserved": self.reserved,
                "kvm": {"usable": False, "reason": "a stand-in", "probed": True},
                "topology": {
                    "cpus": self.vcpus,
                    "sockets": [{"id": 0, "cpus": list(range(self.vcpus)), "cores": self.vcpus}],
                    "memory_mib": 65536,
                },
                "pool": {
                    "physical_mib": 65536,
                    "available_mib": 65536 - memory,
                    "free_mib": 65536 - memory,
                    "startable_mib": 65024 - memory,
                    "reserved_mib": 512,
                    "vcpus": self.vcpus,
                    "vcpu_buffer": 0,
                    "vcpus_allocated": used,
                },
                "disk": {"total_mib": 1 << 20, "free_mib": 1 << 20, "promised_mib": 0},
                "images": [{"name": "tiny", "digest": "0" * 64}],
                "vms": vms,
            }

    def beat(self) -> None:
        """Tell every controller, unless it is told to be silent."""
        with self.lock:
            # At once: who is silent before a new session begins tells nobody of that one.
            if self.silent:
                return
            beat = self.heartbeat()
        for url in self.controllers:
            send(self.address, url, beat)

    def empty(self) -> None:
        """Have nothing, and be told nothing; what it was at ends."""
        self.released.set()
        with self.lock:
            self.released = threading.Event()
            self.delay, self.lose_answers, self.refuse, self.silent = 0.0, 0, "", False
            self.vms.clear()
            self.seen.clear()
            self.restart()

    def restart(self) -> None:
        """Begin a new session, as an agent does that starts again."""
        with self.lock:
            self.session = secrets.token_hex(16)
            self.sequence = 0


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
