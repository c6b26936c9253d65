"""What dies on the way: the agent at each step, the room on the disk; and many at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from ppn.errors import PpnError, Refusal
from ppn.host import settle
from ppn.host.agent.client import operation_of
from ppn.host.agent.service import Service
from ppn.host.agent.timeline import Recorder, Timelines
from ppn.run import run
from tests.integration.agent.agents import SPAWN_STEPS, Agent, check_sound
from tests.integration.host import still
from tests.integration.host.node import Node, wait_for

DESTROY_STEPS = ("admit", "stop", "undefine", "remove_files")
PARALLEL, ROOM = 20, 3
# Rounds of kills, of which some may miss what they are meant for.
TRIES = 5
SPEC = {"name": "web", "image": still.NAME, "vcpus": 2, "memory_mib": 256}
# Three of these fit beside the buffer of a node with 4 GiB.
THIRD_MIB = 1100


def ask_until_killed(agent: Agent, operation: str, **fields: Any) -> threading.Thread:
    """Ask for something on a thread of its own; the answer never comes."""

    def ask() -> None:
        with suppress(PpnError):
            agent.do(operation, **fields)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def kill_at(agent: Agent, asked: threading.Thread, operation: str, step: str) -> str:
    """Kill the agent as soon as an operation reaches a step; the step it was killed in, if any."""
    found = agent.at_step("web", operation, step, lambda: not asked.is_alive())
    agent.kill()
    asked.join(timeout=60)
    return found


@pytest.mark.fault(
    "kill -9 of the agent at each step of a spawn",
    "the VM runs, or nothing is left of it and the reason is kept; a repeated order makes it",
)
def test_agent_killed_at_each_step_of_a_spawn(agent: Agent) -> None:
    """HOST-05: it runs or is gone, with the reason; a repeated order makes it in any case."""
    killed: set[str] = set()
    for step in SPAWN_STEPS * TRIES:
        killed.add(kill_at(agent, ask_until_killed(agent, "spawn", vm=SPEC), "spawn", step))
        agent.start()
        there = check_sound(agent.node, "web")
        records = agent.do("timeline", vm="web")["operations"]
        spawn = [record for record in records if record["operation"] == "spawn"][-1]
        if there:
            assert spawn["outcome"] in ("cut_short", "done")
        else:
            assert (spawn["outcome"], spawn["code"]) == ("cut_short", "agent_ended")
            with pytest.raises(Refusal, match="web is not on this node"):
                agent.do("show", vm="web")
        assert agent.do("spawn", vm=SPEC)["vm"]["state"] == "running"
        agent.do("destroy", vm="web")
        assert agent.node.nothing_is_left()
        # The steps are short: now and then a kill comes in a later one.
        if step == SPAWN_STEPS[-1] and len(killed.intersection(SPAWN_STEPS)) >= 5:
            break
    assert len(killed.intersection(SPAWN_STEPS)) >= 5


@pytest.mark.fault(
    "kill -9 of the agent at each step of a destroy",
    "the next agent finishes it",
)
def test_agent_killed_at_each_step_of_a_destroy(agent: Agent) -> None:
    """HOST-13: a removal that was begun is finished by the next agent."""
    left = set(DESTROY_STEPS)
    for step in DESTROY_STEPS * TRIES:
        if step not in left:
            continue
        agent.spawn()
        # Of a removal that is over by then nothing is left to see.
        if kill_at(agent, ask_until_killed(agent, "destroy", vm="web"), "destroy", step):
            left.remove(step)
        agent.start()
        assert agent.node.nothing_is_left()
        assert agent.do("destroy", vm="web")["changed"] is False
    assert not left


@pytest.mark.fault(
    "20 spawns at once into room for 3",
    "exactly 3 succeed, the others are refused with the numbers",
)
def test_twenty_spawns_into_room_for_three(agent: Agent) -> None:
    """HOST-16: exactly three succeed, the others are refused by memory, and nothing stays."""

    def spawn(number: int) -> str:
        try:
            agent.spawn(name=f"vm-{number}", memory_mib=THIRD_MIB)
        except Refusal as refusal:
            assert refusal.wanted is not None and (refusal.free or 0) < refusal.wanted
            return refusal.code
        return "running"

    with ThreadPoolExecutor(PARALLEL) as threads:
        codes = list(threads.map(spawn, range(PARALLEL)))
    assert sorted(set(codes)) == ["memory_exhausted", "running"]
    assert codes.count("running") == ROOM
    report = agent.do("node")
    assert report["operations"] == []
    assert len(report["node"]["vms"]) == len(agent.node.domains()) == ROOM
    assert sorted(path.name for path in agent.node.paths.vms.iterdir()) == sorted(
        agent.node.domains()
    )
    print("aggregate section held:", report["holds"])
    cpus = [vm.pinning.wanted for vm in agent.node.state().vms]
    held = [cpu for pins in cpus if pins is not None for cpu in pins.cpus]
    assert len(held) == len(set(held))


class SlowRecorder(Recorder):
    """Takes its time between a VM's admission and the first file of it."""

    def step(self, name: str) -> None:
        super().step(name)
        if name == "reserve":
            time.sleep(0.5)


class SlowTimelines(Timelines):
    """Timelines on a slow disk."""

    recorder = SlowRecorder


def test_what_is_admitted_is_counted_before_it_shows(node: Node) -> None:
    """HOST-16: ten spawns, all asked for before the first has left a trace on the node."""
    service = Service(node.paths, on_change=lambda: None, report=dict, uri=node.uri)
    service.timelines = SlowTimelines(node.paths)

    def spawn(number: int) -> str:
        fields = SPEC | {"name": f"vm-{number}", "memory_mib": THIRD_MIB}
        try:
            service.do(operation_of({"operation": "spawn", "vm": fields}), f"test-{number}")
        except Refusal as refusal:
            return refusal.code
        return "running"

    with ThreadPoolExecutor(10) as threads:
        codes = list(threads.map(spawn, range(10)))
    assert codes.count("running") == ROOM == len(node.domains())
    assert service.table.going() == () and service.table.in_flight() == ()


def test_a_large_vm_settles_before_it_is_said_to_run(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DISK-03: it is told to be stabilising until its memory is steady, and then to run."""
    monkeypatch.setattr(settle, "LARGE_MIB", 256)
    told = threading.Event()
    service = Service(node.paths, on_change=told.set, report=dict, uri=node.uri)
    made = service.do(operation_of({"operation": "spawn", "vm": SPEC}), "test-settle")
    assert made["vm"]["state"] == "stabilising"
    told.clear()
    show = operation_of({"operation": "show", "vm": "web"})
    assert service.do(show, "test-settle")["vm"]["state"] == "stabilising"
    assert told.wait(timeout=60)
    assert service.do(show, "test-settle")["vm"]["state"] == "running"


@pytest.mark.fault(
    "the agent is stopped during a spawn",
    "it finishes the spawn first",
)
def test_agent_told_to_stop_ends_what_it_began(agent: Agent) -> None:
    """A spawn in flight is finished before the agent ends."""
    begun = ask_until_killed(agent, "spawn", vm=SPEC)
    file = agent.node.paths.timelines / "web.json"
    wait_for("the spawn", file.exists)
    agent.end()
    begun.join(timeout=60)
    assert check_sound(agent.node, "web")


@pytest.mark.fault(
    "the disk is full at each file of a spawn",
    "the reason is told and nothing of the VM is left",
)
def test_disk_full_at_each_file_of_a_spawn(own: Agent) -> None:
    """HOST-11: whichever file finds no room, nothing is left of the VM, and the reason is told."""
    vms = own.node.paths.vms
    failed = 0
    for inodes in range(2, 9):
        run(["mount", "-o", f"remount,nr_inodes={inodes}", vms], timeout=60)
        try:
            own.spawn()
        except PpnError as error:
            failed += 1
            assert error.code in ("file_failed", "command_failed", "libvirt_failed"), error
            assert "space" in str(error)
            (record,) = own.do("timeline", vm="web")["operations"][-1:]
            assert record["outcome"] == "failed" and "space" in record["message"]
        else:
            own.do("destroy", vm="web")
        assert own.node.nothing_is_left() and list(vms.iterdir()) == []
    assert failed >= 3
    run(["mount", "-o", "remount,nr_inodes=0", vms], timeout=60)
    assert own.spawn()["vm"]["state"] == "running"
    own.do("destroy", vm="web")
