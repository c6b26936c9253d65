"""What every benchmark ends with: one JSON line."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """Two paired series and what they come to.

    Args:
        name: of the benchmark.
        ours, peer: medians, in `unit`.
        ratio: median of the ratios of the pairs, in the sense of `aim`.
        aim: what the ratio should reach.
        met: whether it does.
        runs: number of pairs.
        spread: smallest and largest value of ours, of the peer's and of the ratio.
        machine: what it ran on.
        figures: what else was measured, with the unit in the name.
    """

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    aim: str
    met: bool
    runs: int
    spread: dict[str, tuple[float, float]]
    machine: str
    figures: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """The result as one line of JSON."""
        return json.dumps(asdict(self))


def times_faster(name: str, ours: Sequence[float], peer: Sequence[float], *, aim: float) -> Result:
    """A result where the ratio is how many times faster than the peer we are (seconds)."""
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    ratio = statistics.median(ratios)
    return summary(name, ours, peer, ratios, f">= {aim:g} times faster", ratio >= aim)


def overhead(name: str, ours: Sequence[float], peer: Sequence[float], *, most: float) -> Result:
    """A result where the ratio is our time over the peer's (seconds)."""
    ratios = [own / theirs for own, theirs in zip(ours, peer, strict=True)]
    ratio = statistics.median(ratios)
    return summary(name, ours, peer, ratios, f"<= {most:g} times the peer", ratio <= most)


def summary(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    ratios: Sequence[float],
    aim: str,
    met: bool,
) -> Result:
    """Medians and spread of paired series in seconds."""
    return Result(
        name=name,
        ours=round(statistics.median(ours), 3),
        peer=round(statistics.median(peer), 3),
        unit="s",
        ratio=round(statistics.median(ratios), 3),
        aim=aim,
        met=met,
        runs=len(ours),
        spread={
            "ours": (round(min(ours), 3), round(max(ours), 3)),
            "peer": (round(min(peer), 3), round(max(peer), 3)),
            "ratio": (round(min(ratios), 3), round(max(ratios), 3)),
        },
        machine=machine(),
    )


def machine() -> str:
    """The processor, the number of CPUs, the memory and the kernel of this machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo if "model name" in line), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release()}"
