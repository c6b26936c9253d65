"""The node's disks and how busy its CPUs are, as the kernel shows them (HLT-02, HLT-04)."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from ppn.host.model import BlockDevice, BlockPart, CpuUsage

SECTOR_BYTES = 512
MIB = 1024 * 1024
# Fields of the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
IDLE_FIELDS = (3, 4)
TIME_FIELDS = 8


def read_blocks(sysfs: Path, procfs: Path) -> tuple[BlockDevice, ...]:
    """Every block device with something in it, by name, with what uses it."""
    uses = _uses(procfs)
    found: list[BlockDevice] = []
    for folder in sorted((sysfs / "block").glob("*")):
        size = _number(folder / "size") * SECTOR_BYTES // MIB
        if size > 0:
            found.append(
                BlockDevice(
                    name=folder.name,
                    size_mib=size,
                    model=_text(folder / "device/model"),
                    backing=_text(folder / "loop/backing_file"),
                    rotational=_number(folder / "queue/rotational") == 1,
                    removable=_number(folder / "removable") == 1,
                    read_only=_number(folder / "ro") == 1,
                    used_by=_used_by(folder, uses),
                    parts=tuple(_parts(folder, uses)),
                )
            )
    return tuple(found)


def read_cpu_usage(procfs: Path) -> CpuUsage | None:
    """What the CPUs did since the node booted; None where the kernel does not say."""
    try:
        words = (procfs / "stat").read_text().split("\n", 1)[0].split()
        ticks = [int(word) for word in words[1 : TIME_FIELDS + 1]]
        load = float((procfs / "loadavg").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    idle = sum(ticks[field] for field in IDLE_FIELDS if field < len(ticks))
    per_second = os.sysconf("SC_CLK_TCK")
    return CpuUsage(
        busy_seconds=(sum(ticks) - idle) / per_second,
        idle_seconds=idle / per_second,
        load=load,
    )


def read_cpu_model(procfs: Path) -> str:
    """What the CPUs call themselves; empty where they do not."""
    try:
        lines = (procfs / "cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, "")


def _parts(folder: Path, uses: dict[str, list[str]]) -> list[BlockPart]:
    return [
        BlockPart(
            name=part.parent.name,
            size_mib=_number(part.parent / "size") * SECTOR_BYTES // MIB,
            used_by=_used_by(part.parent, uses),
        )
        for part in sorted(folder.glob("*/partition"), key=lambda part: _number(part))
    ]


def _used_by(folder: Path, uses: dict[str, list[str]]) -> tuple[str, ...]:
    holders = sorted(holder.name for holder in (folder / "holders").glob("*"))
    return (*uses[_text(folder / "dev")], *uses[folder.name], *holders)


def _uses(procfs: Path) -> dict[str, list[str]]:
    """Mount points by device number, and swap by device name."""
    uses: dict[str, list[str]] = defaultdict(list)
    for line in _text(procfs / "self/mountinfo").splitlines():
        words = line.split()
        if len(words) > 4 and words[4] not in uses[words[2]]:
            uses[words[2]].append(words[4])
    for line in _text(procfs / "swaps").splitlines()[1:]:
        uses[Path(line.split()[0]).name].append("swap")
    return uses


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        # Not every device has every file, and a device may go while it is looked at.
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0
