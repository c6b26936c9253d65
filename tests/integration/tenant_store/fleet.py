"""A fleet controller that makes VMs of figures alone, over real HTTP, and never loses count.

As a process of its own (`python -m tests.integration.tenant_store.fleet SEED`) it prints its URL.
With a seed it is slow and moody: it refuses, or ends a connection without an answer, before or
after it did what was asked.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit
from uuid import uuid4

from ppn.fleet.identity import vm_id
from ppn.tenant.model import NOTHING, Amount
from ppn.wire.problems import ProblemBody

LONGEST_WORK = 0.05
SILENT, REFUSES = 0.1, 0.1

Request = socket.socket | tuple[bytes, socket.socket]


class Dropped(Exception):
    """The connection ends without an answer."""


class Fleet:
    """What the fleet has.

    Args:
        moods: where its moods come from; None for one that always does what it is asked.
    """

    def __init__(self, moods: random.Random | None = None) -> None:
        self.vms: dict[str, dict[str, Any]] = {}
        self.making: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.silent: set[str] = set()
        self.peak = NOTHING
        self.connections = 0
        self.removed = 0
        self.before_answer: Callable[[], None] | None = None
        self.before_removal: Callable[[], None] | None = None
        self.lock = threading.Lock()
        self._moods = moods

    def total(self) -> Amount:
        """What runs, or is being made, in all; whatever is being made already counts."""
        total = NOTHING
        for vm in self.vms.values():
            total += Amount(vm["memory_mib"], vm["vcpus"], vm["disk_gib"], 1)
        return total

    def state(self) -> dict[str, Any]:
        """What it has and had, and how many may still ask for something: the one who asks, too."""
        with self.lock:
            amounts = {"peak": vars(self.peak), "total": vars(self.total())}
            return {**amounts, "connections": self.connections, "removed": self.removed}

    def put(self, vm: str, owner: str, amount: Amount, state: str = "running") -> None:
        """Have a VM."""
        self.vms[vm] = {
            "id": vm,
            "uuid": str(uuid4()),
            "owner": owner,
            "state": state,
            "vcpus": amount.vcpus,
            "memory_mib": amount.memory_mib,
            "minimum_mib": 0,
            "disk_gib": amount.disk_gib,
        }
        self.peak = self.peak.most(self.total())

    def answer(
        self, method: str, path: str, body: dict[str, Any], key: str
    ) -> tuple[int, dict[str, Any]]:
        """What a request is answered with."""
        self.asked.append((method, path))
        if self.before_answer is not None:
            act, self.before_answer = self.before_answer, None
            act()
        if method == "DELETE" and self.before_removal is not None:
            act, self.before_removal = self.before_removal, None
            act()
        split = urlsplit(path)
        kind, _, vm = split.path.removeprefix("/v1/").partition("/")
        if kind in self.silent:
            return problem(503, "nodes_silent")
        if kind == "intents":
            return (200, {"stage": self.making[vm]}) if vm in self.making else unknown()
        if kind == "state":
            return 200, self.state()
        if method == "POST":
            return self._make(vm_id(body["owner"], key), body)
        with self.lock:
            if vm not in self.vms:
                return unknown()
            if method == "GET":
                return 200, {"node": "n1", "vm": self.vms[vm]}
            if vm in self.making:
                return problem(409, "vm_busy")
            if method == "DELETE" and split.query != f"uuid={self.vms[vm]['uuid']}":
                return problem(412, "vm_replaced")
        return self._change(method, vm, body)

    def _make(self, vm: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if vm in self.vms and vm not in self.making:
                return 200, {"vm": self.vms[vm]}
            if vm in self.making:
                return problem(409, "order_elsewhere")
            if self._mood(REFUSES):
                return problem(409, "no_capacity")
            if self._mood(SILENT):
                raise Dropped
            self.making[vm] = "going"
            amount = Amount(body["memory_mib"], body["vcpus"], body["disk_gib"], 1)
            self.put(vm, body["owner"], amount, "creating")
        self._work()
        with self.lock:
            self.vms[vm]["state"] = "running"
            del self.making[vm]
        if self._mood(SILENT):
            raise Dropped
        return 201, {"vm": self.vms[vm]}

    def _change(self, method: str, vm: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._mood(REFUSES):
            return problem(409, "vm_running")
        if self._mood(SILENT):
            raise Dropped
        self._work()
        with self.lock:
            if method == "DELETE":
                self.removed += self.vms.pop(vm, None) is not None
            elif vm in self.vms:
                self.vms[vm] |= body
                self.peak = self.peak.most(self.total())
        if self._mood(SILENT):
            raise Dropped
        return 200, {"id": vm}

    def _mood(self, share: float) -> bool:
        return self._moods is not None and self._moods.random() < share

    def _work(self) -> None:
        if self._moods is not None:
            time.sleep(self._moods.uniform(0, LONGEST_WORK))


class Handler(BaseHTTPRequestHandler):
    """One connection to a fleet."""

    fleet: ClassVar[Fleet]
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer."""
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length) or b"{}")
        key = self.headers.get("Idempotency-Key", "")
        try:
            status, said = self.fleet.answer(self.command, self.path, body, key)
        except Dropped:
            self.close_connection = True
            return
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A fleet that listens.

    Args:
        fleet: what answers.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(("127.0.0.1", 0), type("Bound", (Handler,), {"fleet": fleet}))
        self.fleet = fleet
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Request, client_address: object) -> None:
        """Count a connection before anything is read from it; called by `socketserver`."""
        with self.fleet.lock:
            self.fleet.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Request) -> None:
        """Count it out, with all that it asked for done; called by `socketserver`."""
        with self.fleet.lock:
            self.fleet.connections -= 1
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that was killed is no error."""


def problem(status: int, code: str) -> tuple[int, dict[str, Any]]:
    """A refusal as a controller words it."""
    body = ProblemBody(
        type=f"urn:ppn:problem:{code}", title=code, status=status, detail=code, code=code
    )
    return status, body.model_dump(mode="json")


def unknown() -> tuple[int, dict[str, Any]]:
    """There is no such VM."""
    return problem(404, "vm_unknown")


if __name__ == "__main__":
    server = Server(Fleet(random.Random(int(sys.argv[1]))))
    print(server.url, flush=True)
    server.serve_forever()
