"""Facts about a node's hardware that need nothing of ppn on it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from pydantic import ValidationError
from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from ppn.host.model import DiskPool, Socket, Topology

SCRIPT = (
    "set -e; lscpu --parse=CPU,CORE,SOCKET | grep -v '^#'; echo ---;"
    " awk '/^MemTotal:/ {print $2}' /proc/meminfo;"
    " df --output=size,avail --block-size=1M /var/lib | tail -n 1;"
    " if grep -qw cpu /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then echo cpu;"
    " else echo no-cpu; fi"
)


@dataclass(frozen=True)
class Hardware:
    """CPUs, memory, the file system of /var/lib, and whether cgroup v2 has a cpu controller."""

    topology: Topology
    disk: DiskPool
    cpu_controller: bool


class NodeHardware(FactBase[Hardware | None]):
    """The hardware of a node.

    Example:
        `host.get_fact(NodeHardware)`
    """

    @override
    @staticmethod
    def default() -> Hardware | None:
        return None

    @override
    def command(self) -> str:
        return SCRIPT

    @override
    def process(self, output: list[str]) -> Hardware | None:
        try:
            return parse(output)
        except (ValueError, ValidationError) as error:
            raise FactProcessError(f"unexpected description of the hardware: {error}") from error


def parse(output: list[str]) -> Hardware:
    """The script's output as hardware.

    Raises:
        ValueError: a line is missing or no number.
    """
    split = output.index("---")
    memory_kib, sizes, controller = output[split + 1 : split + 4]
    total_mib, free_mib = (int(word) for word in sizes.split())
    sockets = parse_sockets(output[:split])
    topology = Topology(
        cpus=sum(len(socket.cpus) for socket in sockets),
        sockets=sockets,
        memory_mib=int(memory_kib) // 1024,
    )
    disk = DiskPool(total_mib=total_mib, free_mib=free_mib, promised_mib=0)
    return Hardware(topology, disk, controller == "cpu")


def parse_sockets(lines: list[str]) -> tuple[Socket, ...]:
    """Lines of `CPU,CORE,SOCKET` as sockets in order."""
    cpus: dict[int, list[int]] = defaultdict(list)
    cores: dict[int, set[int]] = defaultdict(set)
    for line in lines:
        cpu, core, socket = (int(word or 0) for word in line.split(","))
        cpus[socket].append(cpu)
        cores[socket].add(core)
    return tuple(
        Socket(id=socket, cpus=tuple(sorted(cpus[socket])), cores=len(cores[socket]))
        for socket in sorted(cpus)
    )
