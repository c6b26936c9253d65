"""Which running VMs are not on CPUs of their own, though they could be: pure."""

from __future__ import annotations

from dataclasses import dataclass

from ppn.host.forecast import after
from ppn.host.model import NodeState, Pins
from ppn.host.numa import choose_pins


@dataclass(frozen=True)
class Repinning:
    """A running VM whose vCPUs shall each run on a CPU of their own, and do not (NUMA-03)."""

    vm: str
    pins: Pins

    def __str__(self) -> str:
        return f"CPUs of vm {self.vm}: {', '.join(map(str, self.pins.cpus))}"


def repinnings(node: NodeState) -> tuple[Repinning, ...]:
    """Which running VMs are not on CPUs of their own and can be put there while they run.

    A VM that holds CPUs is put back on them. One that holds none, because none were free when it
    started, gets some as soon as they are.
    """
    found: list[Repinning] = []
    for vm in node.vms:
        if vm.state != "running" or vm.pinning.pinned or vm.spec is None or not vm.pinning.actual:
            continue
        pins = choose_pins(vm.spec, node)
        if pins is not None:
            found.append(Repinning(vm.name, pins))
            node = after(node, vm.spec, pins)
    return tuple(found)
