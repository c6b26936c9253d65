"""Memory that settles, with a real guest and its real balloon."""

from __future__ import annotations

import time

from ppn.host.backend import Backend
from ppn.host.disk import create_disk
from ppn.host.domain import disk_xml, free_target
from ppn.host.settle import OVERHEAD_MIB, Clock, Stage, admit_buffer, attach_settled
from tests.integration.host.node import Node, wait_for


class Attaching:
    """Attaches a disk and lets the balloon give all memory back, as a passed drive makes it."""

    def __init__(self, node: Node, backend: Backend, buffer_mib: int) -> None:
        self.node, self.backend, self.buffer_mib = node, backend, buffer_mib
        self.stages: list[Stage] = []
        self.seen: list[int] = []
        self.reserved: list[int] = []

    def reserve(self) -> None:
        self.reserved.append(self.buffer_mib)

    def release(self) -> None:
        self.reserved.clear()

    def attach(self) -> None:
        assert self.reserved
        files = self.node.paths.vm("web")
        create_disk(files.disk("drive"), 1, None)
        target = free_target(self.backend.targets("web"))
        self.backend.attach("web", disk_xml(files, "drive", target))
        self.backend.set_memory("web", 512)

    def memory_mib(self) -> int:
        (facts,) = self.backend.domains()
        self.seen.append(facts.current_mib or 0)
        return self.seen[-1]

    def report(self, stage: Stage) -> None:
        self.stages.append(stage)


def test_ready_is_said_when_the_balloon_is_steady(node: Node) -> None:
    """DISK-03: nobody is told ready while the guest still takes its memory back."""
    node.apply(memory_mib=512)
    node.wait_ready("web")
    with Backend(node.uri) as backend:
        backend.set_memory("web", 256)
        wait_for("the balloon", lambda: node.monitor("web", "query-balloon")["actual"] == 256 << 20)
        wait_for("libvirt", lambda: node.state().vms[0].memory.current_mib == 256)
        state = node.state()
        buffer = admit_buffer(state.vms[0], state)
        assert buffer == 256 + OVERHEAD_MIB
        attaching = Attaching(node, backend, buffer)
        attach_settled(attaching, Clock(time.monotonic, time.sleep))
    assert attaching.stages == [
        *(Stage.RESERVING, Stage.ATTACHING, Stage.STABILISING, Stage.READY),
    ]
    assert attaching.seen[-1] == 512 and attaching.reserved == []
    assert node.monitor("web", "query-balloon")["actual"] == 512 << 20
