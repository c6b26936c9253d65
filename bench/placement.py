"""Placing 1,000 VMs on 100 to 10,000 simulated nodes: the registry against a Nova-style scan."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from random import Random

from bench.pool import demands, heartbeat, registry_of
from bench.result import Result, machine
from bench.scan import Scan
from ppn.fleet.model import Demand
from ppn.fleet.registry import Registry
from ppn.wire.heartbeat import Heartbeat
from ppn.wire.problems import NoCapacity

VMS = 1000
SIZES = (100, 1000, 10000)
LARGEST = SIZES[-1]
MOST_MICROSECONDS = 1000.0
REFUSALS = 5


def measure(runs: int) -> Result:
    """Place the same VMs on the same pools, one after the other, in pairs.

    Ours is all a controller does for a decision: choose, debit, give an address. The peer filters
    and weighs every node for each VM, as Nova's filter scheduler does, and debits.

    Args:
        runs: how many pairs.
    """
    ours: dict[int, list[float]] = {size: [] for size in SIZES}
    peer: dict[int, list[float]] = {size: [] for size in SIZES}
    refused: list[float] = []
    ratios = []
    for run in range(runs):
        for size in SIZES:
            registry, scan = registry_of(pool(size, run)), Scan(registry_of(pool(size, run)).index)
            wanted = demands(VMS, Random(run))
            for series, place in in_turn(
                run, (ours[size], taker(registry)), (peer[size], scan.take)
            ):
                series += timed(wanted, place)
            if size == LARGEST:
                refused += timed(impossible(), taker(registry))
        means = [statistics.mean(series[LARGEST][-VMS:]) for series in (peer, ours)]
        ratios.append(means[0] / means[1])
        print(f"pair {run + 1}: " + "; ".join(text(size, ours, peer) for size in SIZES), flush=True)
    return result(ours, peer, ratios, refused)


Taker = Callable[[int, Demand], None]
Series = tuple[list[float], Taker]


def in_turn(run: int, first: Series, second: Series) -> tuple[Series, Series]:
    """Each goes first every other time."""
    return (first, second) if run % 2 else (second, first)


def pool(size: int, run: int) -> list[Heartbeat]:
    """Nodes of several kinds, about half full, the same for both."""
    random = Random(1000 * size + run)
    found = []
    for number in range(size):
        cpus = random.choice((32, 64, 64, 128))
        vms = random.randrange(cpus // 4 + 1)
        found.append(heartbeat(number, random, cpus=cpus, memory_mib=cpus * 4096, vms=vms))
    return found


def impossible() -> list[Demand]:
    """What no node can take, so that each must be named with its reason."""
    return [Demand("greedy", "debian-13", 512, 1024, 10, 10240, kvm=False) for _ in range(REFUSALS)]


def taker(registry: Registry) -> Taker:
    """Places by the registry."""

    def take(number: int, demand: Demand) -> None:
        try:
            registry.reserve(f"{demand.owner}-{number}", demand, 0.0)
        except NoCapacity:
            return

    return take


def timed(wanted: Sequence[Demand], take: Taker) -> list[float]:
    """The microseconds of CPU each decision took, so that a busy machine does not count.

    The pool's values are set aside from garbage collection, as the controller does once it is
    warm; what the decisions leave behind is collected as ever.
    """
    gc.collect()
    gc.freeze()
    found = []
    for number, demand in enumerate(wanted):
        start = time.thread_time()
        take(number, demand)
        found.append((time.thread_time() - start) * 1e6)
    gc.unfreeze()
    return found


def percentile(values: Sequence[float], hundredths: int) -> float:
    """A percentile in microseconds."""
    return round(statistics.quantiles(values, n=100)[hundredths - 1], 1)


def text(size: int, ours: dict[int, list[float]], peer: dict[int, list[float]]) -> str:
    """The last run of a size in words."""
    own, other = ours[size][-VMS:], peer[size][-VMS:]
    return (
        f"{size} nodes: p50 {percentile(own, 50)} us, p99 {percentile(own, 99)} us"
        f" (scan: {percentile(other, 50)} us, {percentile(other, 99)} us)"
    )


def result(
    ours: dict[int, list[float]],
    peer: dict[int, list[float]],
    ratios: list[float],
    refused: list[float],
) -> Result:
    """What all pairs come to; the headline is the p99 in the largest pool."""
    most = percentile(ours[LARGEST], 99)
    growth = percentile(ours[LARGEST], 50) / percentile(ours[SIZES[0]], 50)
    figures = {"p50_growth_100_to_10000_nodes": round(growth, 2)}
    for size in SIZES:
        figures[f"ours_p50_us_{size}_nodes"] = percentile(ours[size], 50)
        figures[f"ours_p99_us_{size}_nodes"] = percentile(ours[size], 99)
        figures[f"peer_p50_us_{size}_nodes"] = percentile(peer[size], 50)
        figures[f"peer_p99_us_{size}_nodes"] = percentile(peer[size], 99)
    figures[f"ours_refusal_us_{LARGEST}_nodes"] = round(statistics.median(refused), 1)
    return Result(
        name="placement",
        ours=most,
        peer=percentile(peer[LARGEST], 99),
        unit="us of CPU, p99 of a decision in 10,000 nodes",
        ratio=round(statistics.median(ratios), 1),
        aim="p99 < 1 ms in 10,000 nodes, growth below linear",
        met=most < MOST_MICROSECONDS and growth < LARGEST / SIZES[0],
        runs=len(ratios),
        spread={"ratio": (round(min(ratios), 1), round(max(ratios), 1))},
        machine=machine(),
        figures=figures,
    )
