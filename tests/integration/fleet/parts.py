"""A pool on loopback: real controllers and node proxies, and agents that only count VMs.

The agent is a stand-in here, for what is tested is the controller: what it decides, what it
survives. The real agent has its own tests, and the lab has all of them together.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx

from ppn.errors import PpnError, Refusal
from ppn.pool.tls import TlsFiles
from ppn.wire.frames import encode_frame, payload_length
from ppn.wire.problems import problem_of
from tests.integration.proxy.parts import Authority, wait_for

HEARTBEAT_SECONDS = 0.5
ORDER = {"owner": "acme", "image": "tiny", "vcpus": 2, "memory_mib": 256}


class Agent(socketserver.ThreadingUnixStreamServer):
    """Speaks the agent's frames and keeps VMs as entries of a dictionary.

    Args:
        path: of its socket.
        node: what it answers for.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, node: Node) -> None:
        self.node = node
        super().__init__(str(path), Line)


class Line(socketserver.StreamRequestHandler):
    """One connection of the node proxy."""

    def handle(self) -> None:
        """Answer frames until the other side has no more."""
        assert isinstance(self.server, Agent)
        while prefix := self.rfile.read(4):
            request = json.loads(self.rfile.read(payload_length(prefix)))
            answer = self.server.node.answer(request)
            if answer is None:
                return
            self.wfile.write(encode_frame(json.dumps(answer).encode()))


@dataclass
class Node:
    """One node: its VMs, and what it is told to do wrong.

    Args:
        name: in the inventory.
        address: loopback, as its mesh address.
        vcpus: CPUs its VMs may have.
        reserved: kept for its own user.
        delay: seconds a spawn takes.
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
        self.lock = threading.Lock()
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

    def _do(self, body: dict[str, Any], ticket: dict[str, Any] | None) -> dict[str, Any]:
        name = body["vm"] if isinstance(body.get("vm"), str) else body["vm"]["name"]
        if body["operation"] == "show":
            return {"vm": self._known(name)}
        with self.lock:
            assert ticket is not None
            if (ticket["node"], ticket["session"]) != (self.name, self.session):
                raise Refusal("old", code="ticket_refused", constraint="placement ticket")
            assert ticket["nonce"] not in self.nonces, "a ticket was used twice"
            self.nonces.add(ticket["nonce"])
            if body["operation"] == "spawn":
                report = self._admit(body["vm"])
            elif body["operation"] == "destroy":
                self.vms.pop(name, None)
                return {"changed": True, "vm": None}
            else:
                report = self._known(name)
            if body["operation"] == "resize":
                figures = {figure: body.get(figure) for figure in ("memory_mib", "vcpus")}
                report.update({name: value for name, value in figures.items() if value is not None})
        if report["state"] == "creating":
            time.sleep(self.delay)
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
            "uuid": None,
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
            used = sum(vm["vcpus"] for vm in self.vms.values())
            memory = sum(vm["memory_mib"] for vm in self.vms.values())
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
                "vms": [dict(vm) for vm in self.vms.values()],
            }

    def beat(self) -> None:
        """Tell every controller, unless it is told to be silent."""
        if self.silent:
            return
        beat = self.heartbeat()
        for url in self.controllers:
            send(self.address, url, beat)

    def restart(self) -> None:
        """Begin a new session, as an agent does that starts again."""
        with self.lock:
            self.session = secrets.token_hex(16)
            self.sequence = 0


@cache
def context() -> ssl.SSLContext:
    """One for all: httpx reads every public authority anew for each client, also for plain HTTP."""
    return httpx.create_ssl_context()


def send(source: str, url: str, beat: dict[str, Any]) -> int:
    """Send a heartbeat from an address; 0 when nobody answers."""
    transport = httpx.HTTPTransport(verify=context(), local_address=source)
    try:
        with httpx.Client(transport=transport, timeout=10) as client:
            return client.post(f"{url}/v1/heartbeats", json=beat).status_code
    except httpx.HTTPError:
        return 0


@dataclass
class Controller:
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
        (self.folder / "fleet.json").write_text(json.dumps(self.settings))
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
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

    def kill(self) -> None:
        """End it without warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def start_again(self) -> None:
        """Start it anew with the files it left."""
        self.process = self._start()

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one event."""
        lines = [line for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [found for found in map(json.loads, lines) if found["event"] == event]


@dataclass
class Pool:
    """Controllers and nodes of a test."""

    controllers: list[Controller]
    nodes: list[Node]

    @property
    def first(self) -> Controller:
        """The first controller."""
        return self.controllers[0]

    def reset(self) -> None:
        """Empty every node, and let every controller know."""
        for node in self.nodes:
            node.delay, node.lose_answers, node.refuse, node.silent = 0.0, 0, "", False
            node.vms.clear()
            node.seen.clear()
            node.restart()
            node.beat()

    def held(self) -> dict[str, list[str]]:
        """On which nodes each VM really is."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            for vm in node.vms:
                found.setdefault(vm, []).append(node.name)
        return found


def free_port() -> int:
    """A port that is free on loopback at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def pool(folder: Path, nodes: list[Node], controllers: int = 1) -> Iterator[Pool]:
    """Everything up and heard; everything ended with the block."""
    authority = Authority(folder)
    fleet_port, proxy_port = free_port(), free_port()
    with ExitStack() as stack:
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ppn-fleet-")))
        for node in nodes:
            stack.enter_context(running_node(node, short, folder, authority, proxy_port))
        addresses = [f"127.0.2.{number}" for number in range(1, controllers + 1)]
        started: list[Controller] = []
        for address in addresses:
            own = folder / address
            own.mkdir()
            settings = {
                "name": f"controller-{address}",
                "address": address,
                "mesh_range": "10.8.0.0/24",
                "port": fleet_port,
                "nodes": [{"name": node.name, "address": node.address} for node in nodes],
                "callers": ["127.0.0.1"],
                "controllers": [other for other in addresses if other != address],
                "node_proxy_port": proxy_port,
                "journal": str(own / "intents.jsonl"),
                "request_seconds": 20,
                "development": True,
            }
            files = authority.issue(f"controller-{len(started)}", "controller", address=address)
            settings |= {"certificate": str(files.certificate), "trust": str(files.trust)}
            started.append(Controller(own, settings, files))
            stack.callback(started[-1].end)
        for node in nodes:
            node.controllers = [controller.url for controller in started]
            node.beat()
        yield Pool(started, nodes)


@contextmanager
def running_node(
    node: Node, short: Path, folder: Path, authority: Authority, port: int
) -> Iterator[None]:
    """A node's agent and its real proxy, and heartbeats; ended with the block."""
    path = short / f"{node.name}.sock"
    stop = threading.Event()
    with Agent(path, node) as agent, ExitStack() as stack:
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        stack.callback(agent.shutdown)
        own = authority.issue(node.name, "hypervisor", address=node.address)
        settings = {
            "node": node.name,
            "listen": node.address,
            "port": port,
            "mesh_range": "10.8.0.0/24",
            "allowed": ["127.0.0.0/8"],
            "certificate": str(own.certificate),
            "trust": str(own.trust),
            "agent_socket": str(path),
            "development": True,
        }
        config = folder / f"{node.name}.json"
        config.write_text(json.dumps(settings))
        words = ["-m", "ppn.host.proxy", "--key", str(own.key), "--settings", str(config)]
        with (folder / f"{node.name}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, *words], stderr=log)
        stack.callback(end, process)
        wait_for(lambda: is_open(node.address, port), f"the proxy of {node.name}")

        def beats() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                node.beat()

        beating = threading.Thread(target=beats, daemon=True)
        beating.start()
        stack.callback(beating.join, 30)
        stack.callback(stop.set)
        yield


def is_open(address: str, port: int) -> bool:
    """Whether something listens there."""
    IPv4Address(address)
    with socket.socket() as caller:
        return caller.connect_ex((address, port)) == 0


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait for it."""
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()
        process.wait()
