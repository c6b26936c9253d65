"""The node's CPUs and memory as the kernel shows them (sysfs and /proc/meminfo)."""

from __future__ import annotations

from pathlib import Path

from ppn.errors import PpnError
from ppn.host.hardware import read_cpu_model
from ppn.host.model import NumaNode, Socket, Topology

KIB_PER_MIB = 1024


class TopologyUnreadable(PpnError):
    """The kernel's description of the hardware is missing or not understood."""

    code = "topology_unreadable"


def read_topology(sysfs: Path, procfs: Path) -> Topology:
    """Sockets, cores, NUMA nodes and memory of this machine.

    Raises:
        TopologyUnreadable: a file is missing or holds something else.
    """
    try:
        cpus = parse_cpu_list((sysfs / "devices/system/cpu/online").read_text())
        nodes = sorted((sysfs / "devices/system/node").glob("node[0-9]*"))
        return Topology(
            cpus=len(cpus),
            sockets=_sockets(sysfs, cpus),
            numa_nodes=tuple(_numa_node(folder) for folder in nodes),
            memory_mib=read_memory(procfs / "meminfo")["MemTotal"],
            cpu_model=read_cpu_model(procfs),
        )
    except (OSError, ValueError, KeyError) as error:
        raise TopologyUnreadable(
            f"cannot read the node's topology: {error}", hint=f"look at {sysfs} and {procfs}"
        ) from error


def read_memory(path: Path) -> dict[str, int]:
    """The figures of a meminfo file in MiB, by name; a node's own prefix is dropped."""
    figures: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            figures[name.split()[-1]] = int(words[0]) // KIB_PER_MIB
    return figures


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The kernel's list format, for example `0-3,8`.

    Raises:
        ValueError: another format.
    """
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def _sockets(sysfs: Path, cpus: tuple[int, ...]) -> tuple[Socket, ...]:
    cores: dict[int, dict[tuple[int, int], list[int]]] = {}
    for cpu in cpus:
        folder = sysfs / f"devices/system/cpu/cpu{cpu}/topology"
        package = int((folder / "physical_package_id").read_text())
        die = folder / "die_id"
        core = (
            int(die.read_text()) if die.exists() else 0,
            int((folder / "core_id").read_text()),
        )
        cores.setdefault(package, {}).setdefault(core, []).append(cpu)
    return tuple(
        Socket(
            id=package,
            cpus=tuple(sorted(cpu for core in cores[package].values() for cpu in core)),
            cores=len(cores[package]),
            threads=tuple(tuple(core) for core in cores[package].values()),
        )
        for package in sorted(cores)
    )


def _numa_node(folder: Path) -> NumaNode:
    memory = read_memory(folder / "meminfo")
    return NumaNode(
        id=int(folder.name.removeprefix("node")),
        cpus=parse_cpu_list((folder / "cpulist").read_text()),
        memory_mib=memory["MemTotal"],
        free_mib=memory.get("MemFree"),
    )
