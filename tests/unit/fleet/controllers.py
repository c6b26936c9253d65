"""A controller's parts around nodes that answer as a test tells them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from ppn.errors import Refusal
from ppn.fleet.batches import Batches
from ppn.fleet.identity import batch_id, vm_id
from ppn.fleet.journal import Intent, Journal
from ppn.fleet.making import Asked, Maker
from ppn.fleet.nodes import Call, Nodes
from ppn.fleet.peers import Known, Peers, Stage
from ppn.fleet.recovery import Recovery
from ppn.fleet.registry import Registry
from ppn.fleet.removing import Remover
from ppn.wire.fleet import BatchOrder, VmOrder
from ppn.wire.heartbeat import VmState
from tests.unit.fleet.builders import heartbeat, report

ORDER = VmOrder(owner="acme", image="tiny", vcpus=2, memory_mib=1024, disk_gib=10)
PAIR = BatchOrder(vms=(ORDER, ORDER))
KEY = "key-1"
FIRST, SECOND = vm_id("acme", KEY, 0), vm_id("acme", KEY, 1)
BATCH = batch_id("acme", KEY)
# Answers that tell of no VM, though nothing is said to have failed.
STRANGE: tuple[dict[str, Any], ...] = ({}, {"vm": None}, {"vm": {"id": 7}}, {"vm": "vm-1"})

Answer = Callable[[Call], dict[str, Any]]


class Clock:
    """Seconds that go on, and that a test can let jump."""

    ahead = 0.0

    def __call__(self) -> float:
        """The time now."""
        return time.monotonic() + self.ahead


class Scripted:
    """Stands for the way to the nodes: keeps VMs, and asks the test before each answer."""

    def __init__(self) -> None:
        self.vms: set[str] = set()
        self.uuids: dict[str, str] = {}
        self.states: dict[str, VmState] = {}
        self.calls: list[Call] = []
        self.before: Callable[[Call], Any] = lambda call: None

    async def ask(self, call: Call) -> dict[str, Any]:
        """Answer as a node would."""
        self.calls.append(call)
        waits = self.before(call)
        if waits is not None:
            await waits
        if call.method == "POST":
            assert call.body is not None
            self.vms.add(str(call.body["name"]))
            self.states.pop(str(call.body["name"]), None)
            return {"vm": report(str(call.body["name"]), address=None).model_dump(mode="json")}
        split = urlsplit(call.path)
        vm = split.path.rsplit("/", 1)[1]
        uuid = self.uuids.get(vm, vm)
        if call.method == "DELETE":
            if vm in self.vms and split.query not in ("", f"uuid={uuid}"):
                raise Refusal(vm, code="vm_replaced", constraint="UUID of the VM")
            self.vms.discard(vm)
            return {"changed": True, "vm": None}
        if vm not in self.vms:
            raise Refusal(vm, code="vm_unknown", constraint="known VM")
        state = self.states.get(vm, "running")
        return {"vm": report(vm, state=state, uuid=uuid).model_dump(mode="json")}

    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [call.method for call in self.calls]


@dataclass
class Others(Peers):
    """Stands for the other controllers: they say what the test tells them."""

    says: list[Stage | None] = field(default_factory=list)
    node: str = ""

    async def known(self, other: IPv4Address, vm: str) -> Known | None:
        """The next thing to say; the last one for ever."""
        if not self.says:
            return None
        stage = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        return Known(stage, self.node) if stage is not None else None


class Parts:
    """A controller with nodes a and b, both heard.

    Args:
        path: of its journal.
    """

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        addresses = {"a": IPv4Address("10.8.0.2"), "b": IPv4Address("10.8.0.3")}
        self.registry = Registry(addresses, self.clock())
        self.sequence = 0
        self.journal = Journal(path)
        self.nodes = Scripted()
        self.peers = Others(IPv4Address("10.8.0.9"), (IPv4Address("10.8.0.8"),), 1)
        way = cast(Nodes, self.nodes)
        self.maker = Maker(self.registry, self.journal, way, self.peers, self.clock)
        self.remover = Remover(self.registry, way, self.clock)
        self.batches = Batches(self.maker, self.remover)
        self.recovery = Recovery(self.maker, self.remover)
        self.beat()

    def beat(self) -> None:
        """Let both nodes be heard, with no VM."""
        self.sequence += 1
        for name, node in self.registry.nodes.items():
            self.registry.hear(heartbeat(name, sequence=self.sequence), node.address, self.clock())

    def asked(self, seconds: float = 20.0) -> Asked:
        """A caller that waits so long."""
        return Asked("test-correlation", self.clock() + seconds)

    async def settle(self) -> None:
        """Let the recovery look, and look again when it may decide."""
        await self.recovery.look()
        self.clock.ahead += 11
        await self.recovery.look()


def intent(vm: str, node: str = "a", batch: str = "") -> Intent:
    """An intent of an earlier process."""
    return Intent(id=vm, owner="acme", digest="d" * 64, node=node, batch=batch)
