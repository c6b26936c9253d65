"""The hypervisor processes of a node, whoever started them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppn.host.paths import Paths

# The kernel keeps 15 characters of a program's name.
QEMU_COMM = "qemu-system-"


@dataclass(frozen=True, order=True)
class Process:
    """A process, told from a later one with the same id by its start time (clock ticks)."""

    pid: int
    started: int


def strange_qemus(paths: Paths) -> frozenset[Process]:
    """QEMU processes that libvirt has no record of."""
    known = {_number(_text(file)) for file in paths.pid_file("x").parent.glob("*.pid")}
    found: set[Process] = set()
    for folder in paths.procfs.glob("[0-9]*"):
        name, _, rest = _text(folder / "stat").rpartition(")")
        if name.partition("(")[2].startswith(QEMU_COMM) and int(folder.name) not in known:
            found.add(Process(int(folder.name), int(rest.split()[19])))
    return frozenset(found)


def _text(path: Path) -> str:
    try:
        # A process may call itself what is no text at all.
        return path.read_text(errors="replace")
    except OSError:
        # It ended between the listing and this look.
        return ""


def _number(text: str) -> int:
    return int(text.strip()) if text.strip().isdigit() else 0
