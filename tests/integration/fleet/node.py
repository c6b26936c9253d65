"""A node whose agent only counts VMs, and does wrong what it is told to."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ppn.errors import PpnError, Refusal
from ppn.wire.problems import problem_of
from tests.integration.fleet.edges import send
from tests.integration.host import still

# Questions that a stand-in has no answer to.
UNTOLD = frozenset({"console", "examine", "inspect", "node", "show_move", "timeline"})


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
        if body["operation"] in UNTOLD:
            raise Refusal("a stand-in cannot tell", code="vm_unknown", constraint="known VM")
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
                "images": [{"name": name, "digest": "0" * 64} for name in (still.NAME, "tiny")],
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
