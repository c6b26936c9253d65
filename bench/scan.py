"""The peer of `bench/placement.py`: every node is filtered and weighed for every VM.

This is the way of OpenStack Nova's filter scheduler: a chain of filters over all hosts, then
weighers whose values are normalised over the hosts that are left, then the best is debited. No
database, no message queue and no logging, so it is Nova at its fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ppn.fleet.index import Index
from ppn.fleet.model import Demand, Label


@dataclass(slots=True)
class Host:
    """A node's state as the scan keeps it."""

    name: str
    reserved: bool
    kvm: bool
    largest: int
    vcpus: int
    memory_mib: int
    disk_mib: int
    images: frozenset[str]
    labels: set[Label]


FILTERS: tuple[Callable[[Host, Demand], bool], ...] = (
    lambda host, demand: demand.image in host.images,
    lambda host, demand: demand.vcpus <= host.largest,
    lambda host, demand: demand.vcpus <= host.vcpus,
    lambda host, demand: demand.memory_mib <= host.memory_mib,
    lambda host, demand: demand.disk_mib <= host.disk_mib,
    lambda host, demand: (
        not demand.anti_affinity or (demand.owner, demand.anti_affinity) not in host.labels
    ),
)
# The multiplier puts nodes that are not reserved first, then those with KVM.
WEIGHERS: tuple[tuple[float, Callable[[Host, Demand], float]], ...] = (
    (1.0, lambda host, demand: host.vcpus),
    (1.0, lambda host, demand: host.memory_mib),
    (1.0, lambda host, demand: host.disk_mib),
    (100.0, lambda host, demand: demand.kvm and host.kvm),
    (10000.0, lambda host, demand: not host.reserved),
)


class Scan:
    """A scheduler that looks at all hosts for each VM.

    Args:
        index: the nodes it starts with.
    """

    def __init__(self, index: Index) -> None:
        self.hosts = [
            Host(
                name=view.name,
                reserved=view.reserved,
                kvm=view.kvm,
                largest=view.largest_socket,
                vcpus=view.free_vcpus,
                memory_mib=view.free_memory_mib,
                disk_mib=view.free_disk_mib,
                images=frozenset(view.images),
                labels=set(view.labels),
            )
            for view in index.views().values()
        ]

    def take(self, number: int, demand: Demand) -> None:
        """Choose a host for a VM and debit it; nothing happens when none fits."""
        hosts = self.hosts
        for passes in FILTERS:
            hosts = [host for host in hosts if passes(host, demand)]
        if not hosts:
            return
        weights = [0.0] * len(hosts)
        for multiplier, weigh in WEIGHERS:
            raw = [weigh(host, demand) for host in hosts]
            least, most = min(raw), max(raw)
            if most > least:
                scale = multiplier / (most - least)
                weights = [
                    weight + (value - least) * scale
                    for weight, value in zip(weights, raw, strict=True)
                ]
        best = hosts[max(range(len(hosts)), key=weights.__getitem__)]
        best.vcpus -= demand.vcpus
        best.memory_mib -= demand.memory_mib
        best.disk_mib -= demand.disk_mib
        if demand.label:
            best.labels.add((demand.owner, demand.label))
