"""Whoever dies, whatever is cut, full or damaged: one node has the VM, with its data."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import PpnError
from ppn.host.moving.copies import copy_path
from ppn.run import CommandFailed, run
from tests.integration.host import still
from tests.integration.host.node import wait_for
from tests.integration.moving.controllers import Controller
from tests.integration.moving.parts import LIMITS, Machine, Site
from tests.integration.moving.test_move import KEEP, says, sidecar_of
from tests.logged import logged

# Each round kills another part at another stage; thirty of them meet every pair.
ROUNDS = int(os.environ.get("PPN_MOVES", "2"))
STAGES = ("preparing", "stopping", "copying", "sending", "verifying", "settling")
VICTIMS = ("source agent", "destination agent", "destination proxy", "controller", "both agents")


def victim_of(pool: Site, source: Machine, name: str) -> None:
    """Kill a part without warning, and start it again as systemd does."""
    there = pool.other(source)
    agents = {
        "source agent": (source,),
        "destination agent": (there,),
        "both agents": (source, there),
    }.get(name, ())
    for one in agents:
        one.agent.kill()
    for one in agents:
        one.agent.start()
    if name == "destination proxy":
        there.end_proxy(signal.SIGKILL)
        there.start_proxy()
    if name == "controller":
        pool.first.kill()
        pool.first.start()


@pytest.mark.fault(
    "an agent, a node proxy or a controller is killed at any step of a move",
    "one node at most can run the VM; in the end one does, with its identity and its data",
)
def test_a_move_survives_whoever_is_killed(pool: Site) -> None:
    """MIG-01: at every step, and the guest itself checks its data after each round."""
    vm = pool.create(image="based", **KEEP)
    who = says(pool.place(vm), vm)["machine_id"]
    chance = random.Random(0)
    for number in range(ROUNDS):
        source = pool.place(vm)
        stage = STAGES[number % len(STAGES)]
        victim = VICTIMS[(number // len(STAGES) + number) % len(VICTIMS)]
        boots = int(says(source, vm)["boots"])
        pool.begin(vm, pool.other(source).name)
        pool.reaches(vm, stage)
        wait_for("a moment", lambda: chance.random() < 0.3)
        victim_of(pool, source, victim)
        ended = pool.ended(vm)
        holder = pool.place(vm)
        print(f"round {number}: {victim} at {stage}: {ended['outcome']}")
        assert holder is (pool.other(source) if ended["outcome"] == "done" else source), ended
        now = says(holder, vm, after=boots)
        assert (now["machine_id"], now["check"]) == (who, "ok"), now
        assert int(now["boots"]) == boots + 1
        assert pool.first.ask("GET", "/alerts").json() == []


@pytest.mark.fault(
    "the network between the two nodes of a move is cut",
    "while it is short the move goes on where it was; else the VM runs on where it was",
)
def test_a_cut_between_the_nodes(pool: Site) -> None:
    """MIG-01: bytes that have come are not sent again, and nothing waits for ever."""
    vm = pool.create(image="based", **KEEP)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    with pool.slow():
        pool.begin(vm, there.name)
        came = wait_for("what has come", lambda: there.view(vm).bytes_done)
        with pool.cut():
            time.sleep(1)
    assert pool.ended(vm)["outcome"] == "done"
    assert says(there, vm)["check"] == "ok"
    # What is not a line yet is counted once the proxy ends.
    there.end_proxy()
    there.start_proxy()
    sent = _pieces(there, vm)
    whole = there.node.paths.vm(vm)
    total = sum(whole.disk(name).stat().st_size for name in whole.disk_names())
    assert came and 0 < sent < 1.5 * total / (512 * 1024) + 4
    with impatient(pool.first), pool.slow():
        pool.begin(vm, source.name)
        wait_for("what has come", lambda: source.view(vm).bytes_done)
        with pool.cut():
            failed = pool.ended(vm)
    assert failed["outcome"] == "failed"
    assert failed["problem"]["code"] in ("move_stalled", "destination_unreachable"), failed
    assert pool.place(vm) is there and says(there, vm, after=2)["check"] == "ok"


@contextmanager
def impatient(controller: Controller) -> Iterator[None]:
    """Have a controller call back a move that comes no further for some seconds."""
    usual = controller.settings
    start_again(controller, {**usual, "stall_seconds": 15})
    try:
        yield
    finally:
        start_again(controller, usual)


def start_again(controller: Controller, settings: dict[str, Any]) -> None:
    """Kill it and start it as it is told now."""
    controller.kill()
    controller.settings = settings
    controller.start()


def _pieces(machine: Machine, vm: str) -> int:
    """How many pieces of a VM its proxy has let in."""
    own = logged(machine.node.root / "proxy.log", operation="deliver", vm=vm)
    return sum(int(one.get("more", 1)) for one in own)


@pytest.mark.fault(
    "the destination's disk fills up while a VM comes",
    "nothing of it is left there, and the VM runs on where it was",
)
def test_a_full_destination(pool: Site) -> None:
    """MIG-02: refused before the VM is stopped where that can be known, taken back where not."""
    vm = pool.create(image="based", **KEEP)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    allow(there, "size=1g")
    refused = pool.refused(vm, there.name)
    assert refused["code"] == "disk_exhausted" and refused["wanted"] > refused["free"]
    assert source.runs(vm) and there.node.nothing_is_left()
    allow(there, LIMITS)
    pool.begin(vm, there.name)
    allow(there, "size=8m")
    try:
        failed = pool.ended(vm)
    finally:
        allow(there, LIMITS)
    assert (failed["outcome"], failed["problem"]["code"]) == ("failed", "file_failed"), failed
    assert there.node.nothing_is_left()
    assert says(source, vm, after=1)["check"] == "ok"


def allow(machine: Machine, options: str) -> None:
    """Give a node's folder of VMs other limits."""
    run(["mount", "-o", f"remount,{options}", machine.node.paths.vms], timeout=30)


@pytest.mark.fault(
    "what came of a moving VM is damaged on the destination's disk",
    "it is found before the source gives the VM up, and that disk is sent again",
)
def test_damaged_copies_are_sent_again(pool: Site) -> None:
    """MIG-01: the copy is compared with the source's SHA-256 before anything is decided."""
    vm = pool.create(image="based", **KEEP)
    there = pool.other(pool.place(vm))
    with pool.slow():
        pool.begin(vm, there.name)
        part = copy_path(there.node.paths.vm(vm), "root")
        wait_for("some of it", lambda: part.exists() and part.stat().st_size)
        there.agent.kill()
        damage(part)
    there.agent.start()
    assert pool.ended(vm)["outcome"] == "done"
    assert there.agent.logged(event="disks came damaged", vm=vm)
    assert says(there, vm)["check"] == "ok"


def damage(path: Path) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_nobody_starts_a_vm_between_two_nodes(pool: Site) -> None:
    """MIG-01: neither tenant nor root, neither libvirt nor a boot; on both nodes."""
    vm = pool.create(image="based", **KEEP)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    pool.begin(vm, there.name)
    with pool.cut():
        wait_for("the copies", lambda: source.view(vm).stage == "sending")
        for one in pool.machines:
            spec = sidecar_of(one, vm).spec
            for order in ({"operation": "start", "vm": vm}, {"operation": "destroy", "vm": vm}):
                assert _code(one, **order) in ("vm_busy", "vm_moving")
            assert _code(one, operation="apply", vm=spec) in ("vm_busy", "vm_moving")
            with pytest.raises(CommandFailed):
                one.node.virsh("start", vm)
        for path in ("start", "stop"):
            code = pool.first.ask("POST", f"/vms/{vm}/{path}").json()["code"]
            assert code in ("vm_busy", "vm_moving")
        assert pool.first.ask("DELETE", f"/vms/{vm}").json()["code"] == "vm_moving"
        wait_for("word of it", lambda: states(pool) == {"moving"})
        # The nodes boot: what shall run is started again, and this is not.
        pool.first.kill()
        for one in pool.machines:
            _boot(one)
        assert not any(one.runs(vm) for one in pool.machines)
        # Another controller is asked while the first is dead: it is the same move.
        told = pool.controllers[1].ask("POST", f"/vms/{vm}/move", {"node": there.name}).json()
        assert (told["outcome"], told["node"]) == ("going", there.name), told
    pool.first.start()
    assert pool.ended(vm)["outcome"] == "done"
    assert says(there, vm)["check"] == "ok"


def states(pool: Site) -> set[str]:
    """What the first controller says of the VMs of the pool."""
    return {one["vm"]["state"] for one in pool.first.ask("GET", "/vms").json()}


def _code(machine: Machine, operation: str, **fields: Any) -> str:
    with pytest.raises(PpnError) as caught:
        machine.agent.do(operation, **fields)
    return caught.value.code


def _boot(machine: Machine) -> None:
    machine.agent.kill()
    boot = machine.node.paths.boot_id
    boot.write_text(f"{random.Random(boot.read_text()).randrange(10**12):012d}\n")
    machine.agent.start()


def test_what_does_not_move_is_refused_before_it_is_stopped(pool: Site) -> None:
    """MIG-02: each with the constraint that binds, and the guest goes on."""
    vm = pool.make(image=still.NAME)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    pid = source.node.paths.pid_file(vm).read_text()
    assert pool.refused(vm, source.name)["code"] == "node_same"
    assert pool.refused(vm, "nowhere")["code"] == "node_unknown"
    assert pool.refused("vm-aaaaaaaaaaaaaaaa", there.name)["code"] == "vm_unknown"
    there.agent.spawn(name="wide", vcpus=8, state="stopped")
    full = pool.refused(vm, there.name)
    assert (full["code"], full["wanted"], full["free"]) == ("vcpus_exhausted", 1, 0), full
    # The controller hears with a heartbeat that there is one.
    wait_for(
        "word of it", lambda: pool.refused("wide", source.name)["code"] == "vm_declared", seconds=30
    )
    there.agent.do("destroy", vm="wide")
    image = there.node.paths.image(still.NAME)
    image.rename(image.with_name("gone"))
    try:
        assert pool.refused(vm, there.name)["code"] == "image_unknown"
    finally:
        image.with_name("gone").rename(image)
    assert source.node.paths.pid_file(vm).read_text() == pid
    assert there.node.nothing_is_left()
    assert pool.first.ask("GET", f"/vms/{vm}/move").json()["code"] == "move_unknown"
