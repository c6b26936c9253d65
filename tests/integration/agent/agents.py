"""A host agent as its own process, and a controller that hears its heartbeats."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ppn.host.agent.client import ask, operation_of
from ppn.host.sidecar import read_sidecar
from ppn.wire.agent import Request, Ticket, Timeline
from ppn.wire.heartbeat import Heartbeat
from tests.integration.host import still
from tests.integration.host.node import PPN, Node, is_alive, spec_text, wait_for
from tests.logged import logged

NODE = "server"
SPAWN_STEPS = ("admit", "reserve", "create_disk:root", "write_seed", "define", "start", "record")


class Ear(ThreadingHTTPServer):
    """A controller that only listens."""

    def __init__(self) -> None:
        self.heard: list[Heartbeat] = []
        self.deaf = False
        self.refused: list[Heartbeat] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def last(self) -> Heartbeat:
        """The newest heartbeat, once there is one."""
        newest: Heartbeat = wait_for("a heartbeat", lambda: self.heard[-1:], 60)[0]
        return newest

    def next(self, count: int = 1) -> Heartbeat:
        """The next heartbeat from now on, or the one after so many."""
        known = len(self.heard)
        newest: Heartbeat = wait_for("a heartbeat", lambda: self.heard[known + count - 1 :], 60)[0]
        return newest

    def alerts(self) -> dict[str, str]:
        """The subject of each alert that the newest heartbeat tells, by code."""
        return {alert.code: alert.subject for alert in self.last().alerts}


class _Handler(BaseHTTPRequestHandler):
    server: Ear
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/heartbeats"
        deaf = self.server.deaf
        taken = self.server.refused if deaf else self.server.heard
        taken.append(Heartbeat.model_validate_json(body))
        self.send_response(503 if deaf else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@contextmanager
def listening() -> Iterator[Ear]:
    """An ear for the length of the block."""
    with Ear() as ear:
        thread = threading.Thread(target=ear.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield ear
        finally:
            ear.shutdown()
            thread.join()


@dataclass
class Agent:
    """The host agent of a node, started, killed and asked by a test."""

    node: Node
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, **settings: Any) -> None:
        """Start it and wait until it serves."""
        self.settings |= settings
        self.write_settings()
        self.process = self.spawn_process()
        wait_for("the agent", lambda: self.serves() or self.process_ended())
        assert not self.process_ended(), self.log()

    def write_settings(self) -> None:
        """Write its settings file."""
        given = {"node": NODE, "heartbeat_seconds": 0.5} | self.settings
        self.node.paths.agent_settings.parent.mkdir(parents=True, exist_ok=True)
        self.node.paths.agent_settings.write_text(json.dumps(given))

    def spawn_process(self) -> subprocess.Popen[bytes]:
        """Start the program, without waiting for anything."""
        with (self.node.root / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [*self.node.enter, PPN, "host", "agent"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.node.environment, **self.environment},
            )

    def serves(self) -> bool:
        """Whether it answers."""
        return (
            self.node.paths.agent_socket.exists()
            and ask(self.node.paths.agent_socket, operation_of({"operation": "node"})) is not None
        )

    def process_ended(self) -> bool:
        """Whether the program has ended."""
        return self.process is None or self.process.poll() is not None

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal, and wait until it is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=120)
            self.process = None

    def kill(self) -> None:
        """Kill it: it can do nothing any more."""
        self.end(signal.SIGKILL)

    def do(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Ask it, as root; the result.

        Raises:
            PpnError: its answer is a problem.
        """
        body = operation_of({"operation": operation, **fields})
        found = ask(self.node.paths.agent_socket, body, deadline=300)
        assert found is not None, "no agent listens"
        return found

    def spawn(self, **spec: Any) -> dict[str, Any]:
        """Spawn a VM of the tests' usual size, of the still image if no other is named."""
        return self.do("spawn", vm=json.loads(spec_text({"image": still.NAME, **spec})))

    def at_step(self, vm: str, operation: str, step: str, done: Callable[[], bool]) -> str:
        """Wait until an operation has come to a step; the step it is at by then.

        Args:
            vm: whom it changes.
            operation: its name.
            step: to wait for.
            done: whether it is over, as who asked for it knows: what it did may be forgotten.

        Returns:
            Its last step; empty when it was over and no longer to be seen.
        """
        file = self.node.paths.timelines / f"{vm}.json"

        def reached() -> str:
            try:
                last = Timeline.model_validate_json(file.read_bytes()).operations[-1]
            except FileNotFoundError:
                return ""
            names = [one.name for one in last.steps]
            return names[-1] if last.operation == operation and step in names else ""

        # Steps are short, but the agent whose steps they are needs a processor too.
        over = False
        while not (found := reached()) and not over:
            assert not self.process_ended()
            # Looked at once more after that: it may have come to the step meanwhile.
            over = done()
            time.sleep(0.001)
        return found

    def wait_for_order(self) -> None:
        """Wait until every VM of its node runs, nothing is wrong, and nobody puts it right.

        Raises:
            AssertionError: it does not come to that; with all that is known of the node.
        """

        def in_order() -> bool:
            report = self.do("node")
            well = not report["node"]["alerts"] and not report["operations"]
            return well and all(vm["state"] == "running" for vm in report["node"]["vms"])

        try:
            wait_for("order", in_order)
        except AssertionError as late:
            daemons = (self.node.root / "daemons.log").read_text()
            raise AssertionError(f"{late}: {self.do('node')}\n{self.log()}\n{daemons}") from late

    def log(self) -> str:
        """Everything it has logged."""
        return (self.node.root / "agent.log").read_text()

    def logged(self, **fields: Any) -> list[dict[str, Any]]:
        """Its log lines with these fields."""
        return logged(self.node.root / "agent.log", **fields)


def check_sound(node: Node, vm: str) -> bool:
    """Whether the VM is there; if so it is whole, and if not nothing of it is left."""
    sidecar = read_sidecar(node.paths.vm(vm).sidecar)
    if sidecar is None:
        assert node.nothing_is_left()
        return False
    assert sidecar.phase == "ready" and sidecar.uuid == node.virsh("domuuid", vm).strip()
    assert is_alive(int(node.paths.pid_file(vm).read_text()))
    return True


def request(operation: str, session: str | None = None, **fields: Any) -> Request:
    """A request as the node proxy sends it, with a new ticket when a session is given."""
    ticket = Ticket(node=NODE, session=session, nonce=secrets.token_hex(16)) if session else None
    return Request(
        correlation_id=f"test-{secrets.token_hex(6)}",
        ticket=ticket,
        deadline_seconds=120,
        body=operation_of({"operation": operation, **fields}),
    )
