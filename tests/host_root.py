"""A node's root folder for tests: hardware as the kernel would show it, and an empty house."""

from __future__ import annotations

from pathlib import Path


def write_hardware(
    root: Path, *, sockets: int = 1, cores: int, threads: int = 1, memory_mib: int
) -> None:
    """Write sysfs and procfs files of a machine, one NUMA node for each socket."""
    cpus = sockets * cores * threads
    system = root / "sys/devices/system"
    _write(system / "cpu/online", f"0-{cpus - 1}\n")
    per_socket = cores * threads
    for cpu in range(cpus):
        topology = system / f"cpu/cpu{cpu}/topology"
        _write(topology / "physical_package_id", f"{cpu // per_socket}\n")
        _write(topology / "core_id", f"{cpu % per_socket // threads}\n")
        _write(topology / "die_id", "0\n")
    for socket in range(sockets):
        node = system / f"node/node{socket}"
        _write(node / "cpulist", f"{socket * per_socket}-{(socket + 1) * per_socket - 1}\n")
        part = memory_mib * 1024 // sockets
        _write(node / "meminfo", f"Node {socket} MemTotal:       {part} kB\n")
    total = memory_mib * 1024
    _write(root / "proc/meminfo", f"MemTotal: {total} kB\nMemAvailable: {total} kB\n")
    _write(root / "proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000000\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
