"""Heartbeats one controller takes in on one core, and the memory of a pool of 350,000 cores."""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.pool import address_of, heartbeat
from bench.result import Result, machine
from ppn.fleet.registry import Registry
from ppn.wire.heartbeat import Heartbeat

# The largest pool we know of: 350,000 cores and 3 PB of memory (OPS-01).
NODES = 5500
CPUS = 64
MEMORY_MIB = 572_000
VMS = 16
# 10,000 nodes, each every 10 s.
WANTED_PER_SECOND = 1000.0


def measure(runs: int) -> Result:
    """Take in the heartbeats of a full pool, round after round, from JSON to placement's view.

    The peer is the load itself: 10,000 nodes, each every 10 s.

    Args:
        runs: how many rounds; each node of the pool sends one heartbeat in a round.
    """
    bodies = [body(number) for number in range(NODES)]
    before = resident_mib()
    registry = Registry({f"node-{number:05}": address_of(number) for number in range(NODES)}, 0.0)
    round_of(registry, bodies, 1)
    gc.collect()
    held = resident_mib() - before
    gc.freeze()
    print(f"{NODES} nodes, {NODES * CPUS} cores, {NODES * VMS} VMs: {held:.0f} MiB", flush=True)
    rates, worst = [], []
    for run in range(runs):
        took = round_of(registry, bodies, run + 2)
        rates.append(len(took) / sum(took))
        worst.append(max(took) * 1e3)
        print(f"round {run + 1}: {rates[-1]:.0f}/s, slowest {worst[-1]:.1f} ms", flush=True)
    gc.unfreeze()
    ratios = [rate / WANTED_PER_SECOND for rate in rates]
    ratio = statistics.median(ratios)
    return Result(
        name="heartbeats",
        ours=round(statistics.median(rates)),
        peer=WANTED_PER_SECOND,
        unit="heartbeats per second of CPU",
        ratio=round(ratio, 2),
        aim=">= 1000 per second on one core",
        met=ratio >= 1,
        runs=runs,
        spread={"ratio": (round(min(ratios), 2), round(max(ratios), 2))},
        machine=machine(),
        figures={
            "nodes": NODES,
            "cores": NODES * CPUS,
            "vms": NODES * VMS,
            "body_bytes": len(text(bodies[0], 1)),
            "validation_us": round(validation_us(bodies), 1),
            "registry_mib": round(held, 1),
            "slowest_ms": round(max(worst), 1),
        },
    )


Body = tuple[bytes, bytes]


def body(number: int) -> Body:
    """The JSON of a full node's heartbeat, before and after its sequence number."""
    beat = heartbeat(number, Random(number), cpus=CPUS, memory_mib=MEMORY_MIB, vms=VMS)
    fields = beat.model_dump(mode="json")
    del fields["sequence"]
    return (json.dumps(fields)[:-1] + ', "sequence": ').encode(), b"}"


def text(parts: Body, sequence: int) -> bytes:
    """A heartbeat as it comes."""
    return parts[0] + str(sequence).encode() + parts[1]


def round_of(registry: Registry, bodies: Sequence[Body], sequence: int) -> list[float]:
    """Take in one heartbeat of each node; the seconds of CPU each took."""
    took = []
    for number, parts in enumerate(bodies):
        raw = text(parts, sequence)
        start = time.thread_time()
        registry.hear(Heartbeat.model_validate_json(raw), address_of(number), float(sequence))
        took.append(time.thread_time() - start)
    return took


def validation_us(bodies: Sequence[Body]) -> float:
    """The microseconds of CPU it takes to validate a body alone."""
    raw = [text(parts, 0) for parts in bodies[:500]]
    start = time.thread_time()
    for one in raw:
        Heartbeat.model_validate_json(one)
    return (time.thread_time() - start) / len(raw) * 1e6


def resident_mib() -> float:
    """The memory this process holds, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
