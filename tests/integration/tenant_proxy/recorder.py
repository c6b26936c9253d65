"""A controller that answers from a dictionary of VMs, and records what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from ppn.errors import PpnError, Refusal
from ppn.fleet.identity import vm_id
from ppn.wire.problems import problem_of

NODE = "node-with-a-name"


@dataclass
class Seen:
    """One request that the recording controller got."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Recorder:
    """A controller that keeps VMs as entries of a dictionary, and every request.

    Args:
        address: loopback.
        stuck: owners whose orders are not answered until `unstick` is called.
        refuse: what every order is refused with; None for none.
        drop: so many orders are carried out and never answered.
        at_removal: called before a VM is removed.
    """

    address: str
    stuck: set[str] = field(default_factory=set)
    refuse: PpnError | None = None
    drop: int = 0
    at_removal: Callable[[], None] = lambda: None
    vms: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.unstuck = threading.Event()
        recorder = self

        class Handler(Asked):
            controller = recorder

        self.server = Server((self.address, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def reset(self) -> None:
        """Forget everything."""
        self.stuck, self.refuse, self.drop = set(), None, 0
        self.at_removal = lambda: None
        self.unstuck.set()
        self.unstuck = threading.Event()
        self.vms.clear()
        self.seen.clear()

    def unstick(self) -> None:
        """Answer what was not answered."""
        self.stuck = set()
        self.unstuck.set()

    def close(self) -> None:
        """End it."""
        self.unstick()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(30)

    def asked(self, method: str) -> list[Seen]:
        """The requests of one method."""
        return [one for one in self.seen if one.method == method]

    def hold(self, vm: str, owner: str, **changes: Any) -> None:
        """Have a VM."""
        self.vms[vm] = {
            "id": vm,
            "uuid": str(uuid4()),
            "owner": owner,
            "state": "running",
            "created": "2026-01-01T00:00:00+00:00",
            "image": "tiny",
            "vcpus": 2,
            "memory_mib": 256,
            "minimum_mib": 128,
            "weight": 300,
            "disk_gib": 1,
            "disks": [],
            "address": "10.9.2.17",
            "ports": [{"guest": 80, "protocol": "tcp", "host": 20001}],
            "problems": [f"on {NODE} at 10.8.0.2"],
            **changes,
        }

    def answer(self, asked: Seen) -> tuple[int, Any]:
        """Status and body of an answer."""
        split = urlsplit(asked.path)
        parts = split.path.strip("/").split("/")[1:]
        if parts[0] == "intents":
            raise unknown(parts[1])
        if asked.method == "POST" and parts == ["vms"]:
            return self.make(asked)
        if parts == ["vms"]:
            (owner,) = parse_qs(split.query).get("owner", [""])
            found = [vm for vm in self.vms.values() if owner in ("", vm["owner"])]
            return 200, [{"node": NODE, "stale": False, "vm": vm} for vm in found]
        if asked.method == "DELETE" and not parts[2:]:
            return self.remove(parts[1], parse_qs(split.query).get("uuid"))
        return self.change(asked.method, parts[1], parts[2:], asked.body)

    def make(self, asked: Seen) -> tuple[int, Any]:
        """Make a VM, or find it."""
        order, key = asked.body, asked.headers["idempotency-key"]
        if order["owner"] in self.stuck:
            self.unstuck.wait(60)
        if self.refuse is not None:
            raise self.refuse
        vm = vm_id(order["owner"], key)
        with self.lock:
            fresh = vm not in self.vms
            if fresh:
                wanted = {name: order[name] for name in ("image", "vcpus", "memory_mib", "disks")}
                self.hold(vm, order["owner"], disk_gib=order["disk_gib"], **wanted)
        return 201 if fresh else 200, {"node": NODE, "stale": False, "vm": self.vms[vm]}

    def remove(self, vm: str, uuid: list[str] | None) -> tuple[int, Any]:
        """Remove the very VM that is named."""
        self.at_removal()
        if vm not in self.vms:
            raise unknown(vm)
        if self.refuse is not None:
            raise self.refuse
        if uuid != [self.vms[vm]["uuid"]]:
            raise Refusal(f"{vm} on {NODE}", code="vm_replaced", constraint="UUID of the VM")
        del self.vms[vm]
        return 200, {"id": vm, "nodes": [NODE]}

    def change(self, method: str, vm: str, what: list[str], body: Any) -> tuple[int, Any]:
        """Show or change a VM."""
        held = self.vms.get(vm)
        if held is None:
            raise unknown(vm)
        if self.refuse is not None and method != "GET":
            raise self.refuse
        if method == "PATCH":
            held.update(body)
        if method == "POST" and what == ["disks"]:
            held["disks"] = [*held["disks"], body]
        if method == "DELETE":
            held["disks"] = [disk for disk in held["disks"] if disk["name"] != what[1]]
        if what in (["stop"], ["start"]):
            held["state"] = {"stop": "stopped", "start": "running"}[what[0]]
        if what == ["timeline"]:
            return 200, timeline(vm)
        if what == ["console"]:
            return 200, {"vm": vm, "text": "hello", "size_bytes": 5, "node": NODE}
        if what == ["move"]:
            return 202, {"id": vm, "move": "m" * 16, "source": NODE, "node": "b", "stage": "copy"}
        if method == "GET":
            return 200, {"node": NODE, "stale": False, "vm": held}
        return 200, {"changed": True, "actions": [f"on {NODE}"], "vm": held, "node": NODE}


class Server(ThreadingHTTPServer):
    """Many connections at once, and none that outlives the test."""

    daemon_threads = True
    request_queue_size = 512


class Asked(BaseHTTPRequestHandler):
    """One connection of a tenant proxy."""

    controller: Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        controller = self.controller
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Seen(self.command, self.path, headers, body)
        controller.seen.append(asked)
        try:
            status, found = controller.answer(asked)
        except PpnError as error:
            problem = problem_of(error)
            status, found = problem.status, problem.model_dump(mode="json")
        if controller.drop > 0 and self.command != "GET":
            controller.drop -= 1
            self.close_connection = True
            return
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are kept."""


def unknown(vm: str) -> Refusal:
    """What a controller says of a VM that no node has."""
    return Refusal(f"no node has vm {vm}", code="vm_unknown", constraint="known VM")


def timeline(vm: str) -> dict[str, Any]:
    """A VM's timeline, with words that no tenant should see."""
    operation = {
        "operation": "spawn",
        "correlation_id": "c0ffee00-1",
        "began": "2026-01-01T00:00:00+00:00",
        "outcome": "failed",
        "code": "libvirt_failed",
        "message": f"{NODE} could not",
        "steps": [{"name": "admit", "at_seconds": 0.0, "seconds": 0.1}],
    }
    return {"vm": vm, "operations": [operation], "node": NODE}
