"""Registry and placement against every kind of failure: many short schedules, drawn by seeds.

`PPN_SCHEDULES` says how many, `PPN_FIRST_SEED` where to begin. A failure names its seed; see
`python -m tests.simulation SEED`.
"""

from __future__ import annotations

import gc
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.fleet.model import Demand
from ppn.host.forecast import after
from ppn.host.model import Image, Settings
from ppn.host.policy import refusals
from ppn.host.spec import spec_from_data
from ppn.wire.heartbeat import Heartbeat
from tests.simulation.agent import BUFFER_MIB, Agent
from tests.simulation.traffic import DEMANDS
from tests.simulation.world import World
from tests.unit.host.builders import make_node

SCHEDULES = int(os.environ.get("PPN_SCHEDULES", "100000"))
FIRST = int(os.environ.get("PPN_FIRST_SEED", "0"))
LAST = FIRST + SCHEDULES
# One process takes so many at a time.
CHUNK = 1000
LINES = 40
# It is the last to get a processor, whatever else runs beside it.
SECONDS = 7200
AUTOGROUP = Path("/proc/self/autogroup")


@pytest.mark.timeout(SECONDS)
def test_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    """FLEET-01, FLEET-03, FLEET-05, FLEET-12, FLEET-16, FLEET-19, IP-01, with what may fail.

    No node has more than it can hold, a reserved one is chosen only when no other fits, what a
    controller counts is what lives and what is on its way, and no VM said to run is lost. One
    controller never makes a VM twice; where several do, because the one asked again could not
    know yet, each of them says so.
    """
    ranges = [range(FIRST + at, min(FIRST + at + CHUNK, LAST)) for at in range(0, SCHEDULES, CHUNK)]
    with ProcessPoolExecutor(mp_context=get_context("fork"), initializer=begin) as pool:
        outcomes = list(pool.map(run_all, ranges))
    failed = [outcome.failed for outcome in outcomes if outcome.failed is not None]
    assert not failed, story(failed[0])
    placed = sum(outcome.placed for outcome in outcomes)
    doubles = sum(outcome.doubles for outcome in outcomes)
    with capsys.disabled():
        print(f"\n{SCHEDULES} schedules: {placed} VMs placed, {doubles} doubled and reported")
    assert placed > SCHEDULES


def begin() -> None:
    """Make a process of the pool the last to get a processor, before its first schedule."""
    # Linux shares processors between sessions first, and by what each session says of itself.
    os.setsid()
    if AUTOGROUP.exists():
        AUTOGROUP.write_text("19")
    # What is there already is no garbage, and is not searched for any.
    gc.freeze()


@dataclass(frozen=True)
class Outcome:
    """What some schedules came to; `failed` is the first seed that failed."""

    placed: int
    doubles: int
    failed: int | None = None


def run_all(seeds: range) -> Outcome:
    """Run schedules one after the other until one fails."""
    placed = doubles = 0
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except Exception:
            return Outcome(placed, doubles, seed)
        placed += world.placed
        doubles += world.doubles
        # They and the world refer to each other: so it is freed now, its memory still at hand.
        world.controllers.clear()
    return Outcome(placed, doubles)


def story(seed: int) -> str:
    """The end of a schedule that fails, told again."""
    lines: list[str] = []
    with pytest.raises(Exception) as caught:
        World(seed, lines.append).run()
    told = "\n".join(lines[-LINES:])
    return f"seed {seed}: {caught.value}\n{told}\nsee python -m tests.simulation {seed}"


@given(st.integers(0, 2**32), st.lists(st.sampled_from(DEMANDS), max_size=12))
def test_agent_admits_and_counts_as_the_real_rules_do(seed: int, demands: list[Demand]) -> None:
    """HOST-12: the model in the simulation is `ppn.host.policy` and `ppn.host.forecast`."""
    agent = Agent(0, Random(seed))
    state = make_node(
        cpus=agent.topology.cpus,
        physical_mib=agent.topology.memory_mib,
        free_disk_mib=agent.disk_mib,
        settings=Settings(allow_odd_vcpus=agent.odd, memory_buffer_mib=BUFFER_MIB),
        images=(Image(name="tiny", digest="0", disk_mib=1024),),
    )
    for number, demand in enumerate(demands):
        spec = spec_from_data(
            {
                "name": f"vm-{number}",
                "image": "tiny",
                "vcpus": demand.vcpus,
                "memory_mib": demand.memory_mib,
                "disk_gib": demand.disk_mib // 1024,
            }
        )
        refused = agent.refusal(spec.name, demand, None)
        assert (refused is None) == (not list(refusals(spec, state)))
        if refused is None:
            agent.admit(spec.name, demand, None)
            state = after(state, spec)
        beat = agent.heartbeat()
        assert (beat.pool, beat.disk) == (state.pool, state.disk)
        assert Heartbeat.model_validate(beat.model_dump()) == beat
