"""New VMs by the host agent, stage by stage, against `virsh create` of the same domain (OPS-02)."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import replace
from typing import Any

from bench.result import Result, overhead
from bench.vm_create import SPEC, await_guest, fresh_name, hypervisor, timed_peer
from tests.integration.agent.agents import Agent
from tests.integration.host.node import wait_for

# Everything but the guest's own boot, in seconds.
MOST_SECONDS = 1.0
# Of VMs for each run asked for: 20 with the usual 5.
VMS_PER_RUN = 4


def measure(runs: int) -> Result:
    """Spawn VMs one after the other and say how long each stage took.

    Args:
        runs: how many pairs with the peer; four VMs are spawned for each.

    Raises:
        GuestSilent: a guest did not come up.
    """
    stages: dict[str, list[float]] = defaultdict(list)
    answers: list[float] = []
    peer: list[float] = []
    with hypervisor() as agent:
        timed_peer(agent)
        for pair in range(runs):
            peer.append(timed_peer(agent).command)
            for _ in range(VMS_PER_RUN):
                for name, seconds in spawned(agent).items():
                    stages[name].append(seconds)
                answers.append(stages["answer"][-1])
            print(f"run {pair + 1}: answer {answers[-1]:.3f} s, virsh {peer[-1]:.3f} s", flush=True)
    figures = {
        f"{name}_{word}_s": round(value, 4)
        for name, series in stages.items()
        for word, value in figures_of(series).items()
    }
    for name, series in stages.items():
        shown = ", ".join(f"{word} {value:.3f}" for word, value in figures_of(series).items())
        print(f"{name:18} {shown} s over {len(series)} VMs")
    ours = [statistics.median(answers[at::runs]) for at in range(runs)]
    result = overhead("spawn", ours, peer, most=0)
    slowest = figures["answer_p99_s"]
    aim = f"p99 of the answer under {MOST_SECONDS:g} s"
    return replace(result, aim=aim, met=slowest < MOST_SECONDS, figures=figures)


def figures_of(series: list[float]) -> dict[str, float]:
    """Mean, median and 99th percentile, by the nearest rank."""
    ordered = sorted(series)
    last = ordered[max(-(-len(ordered) * 99 // 100) - 1, 0)]
    return {"mean": statistics.fmean(series), "p50": statistics.median(series), "p99": last}


def spawned(agent: Agent) -> dict[str, float]:
    """Seconds of every stage of one new VM, removed again; `answer` is all but its boot."""
    name = fresh_name()
    agent.do("spawn", vm={"name": name, **SPEC})
    await_guest(agent.node, name, agent.node.paths.vm(name).serial_log)
    record = wait_for("the guest's first byte", lambda: complete(agent, name), 30)
    agent.do("destroy", vm=name)
    steps = {step["name"]: step for step in record["steps"]}
    found = {name: step["seconds"] for name, step in steps.items() if step["seconds"] is not None}
    last = steps["record"]
    found["answer"] = last["at_seconds"] + last["seconds"]
    found["first guest code"] = steps["first guest code"]["at_seconds"]
    return found


def complete(agent: Agent, name: str) -> dict[str, Any] | None:
    """The record of a VM's spawn once its guest was heard; None before."""
    (record,) = agent.do("timeline", vm=name)["operations"]
    found: dict[str, Any] = record
    return found if len(found["steps"]) > 0 and found["steps"][-1]["name"] != "record" else None
