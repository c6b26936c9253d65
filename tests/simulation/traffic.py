"""What clients want, and what is on its way between controllers and nodes."""

from __future__ import annotations

from typing import NamedTuple

from ppn.fleet.model import Demand
from ppn.fleet.node import Reservation
from ppn.wire.heartbeat import Heartbeat

DEMANDS = [
    Demand("acme", "tiny", vcpus, memory, 1, disk * 1024, label, "", apart, kvm, False, policy)
    for vcpus, memory, disk in ((1, 512, 1), (2, 1024, 2), (2, 2048, 1), (4, 1024, 4))
    for label, apart in (("", ""), ("web", "web"))
    for kvm in (True, False)
    for policy in ("spread", "pack", "kvm-first")
]  # fmt: skip


# To which request, and what.
Answer = tuple[Reservation, str]


class Message(NamedTuple):
    """Something on its way between a controller and a node.

    Args:
        controller, node: their numbers.
        made: the true time it was sent.
        content: a heartbeat, a request to make a VM, or the answer to that.
    """

    controller: int
    node: int
    made: float
    content: Heartbeat | Reservation | Answer
