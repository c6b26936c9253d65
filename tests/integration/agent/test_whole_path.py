"""A spawn through controller, node proxy and agent, while one of them or the VM's QEMU dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import httpx
import pytest

from ppn.fleet.identity import vm_id
from tests.integration.agent.agents import NODE, SPAWN_STEPS, Agent
from tests.integration.fleet.edges import Door, succeeds
from tests.integration.fleet.node import Node as StandIn
from tests.integration.fleet.parts import ORDER, Controller, Outside, Pool, pool
from tests.integration.host import still
from tests.integration.host.node import Node, end_process, is_alive, wait_for

OWNER = str(ORDER["owner"])
# Seconds after QEMU became a process: at once, and while libvirt talks to it.
EARLY_KILLS = (0.0, 0.1, 0.2)
TRIES = 20
KEYS = map("order-{}".format, count())


@dataclass
class Way:
    """A controller before two nodes: the real one, and a stand-in that is asked only after it."""

    pool: Pool
    agent: Agent

    @property
    def controller(self) -> Controller:
        """The only controller."""
        return self.pool.first

    @property
    def door(self) -> Door:
        """The real node's proxy."""
        return self.pool.doors[NODE]

    @property
    def other(self) -> StandIn:
        """The stand-in."""
        return self.pool.nodes[0]

    @property
    def node(self) -> Node:
        """The real node."""
        return self.agent.node

    def hears(self) -> bool:
        """Whether the controller has heard both nodes."""
        with self.controller.client() as client:
            return bool(client.get("/v1/fleet").json()["live"] == 2)

    def restart_controller(self, request_seconds: float = 45) -> None:
        """Start the controller anew, and wait until it knows the nodes."""
        self.controller.kill()
        self.controller.start_again(request_seconds=request_seconds)
        wait_for("both nodes", self.hears)

    def create(self, key: str, image: str = still.NAME) -> httpx.Response:
        """Ask for a VM."""
        return self.controller.create(key, image=image)

    def show(self, vm: str) -> dict[str, object]:
        """A VM as the controller knows it."""
        with self.controller.client() as client:
            found: dict[str, object] = client.get(f"/v1/vms/{vm}").json()["vm"]
            return found

    def made(self, vm: str) -> bool:
        """Whether the controller knows a VM as one that is made."""
        return self.show(vm)["state"] in ("running", "stopped")

    def start(self, vm: str) -> httpx.Response:
        """Have a VM started."""
        with self.controller.client() as client:
            return client.post(f"/v1/vms/{vm}/start")

    def alerts(self) -> dict[str, str]:
        """The subject of each alert that the real node tells the controller, by code."""
        with self.controller.client() as client:
            told = client.get(f"/v1/nodes/{NODE}").json()["alerts"]
        return {alert["code"]: alert["subject"] for alert in told}

    def qemu(self, vm: str) -> int:
        """The process of a VM on the real node, also before libvirt has it noted; 0 for none."""
        name = f"guest={vm},".encode()
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = file.read_bytes()
            except OSError:
                # It ended between the listing and this look.
                continue
            if b"qemu-system" in words and name in words:
                return int(file.parent.name)
        return 0

    def made_once(self, vm: str) -> bool:
        """Whether a VM is on the real node alone, runs, and was made by one operation."""
        done = self.agent.logged(event="operation done", operation="spawn", vm=vm, changed=True)
        assert len(done) == 1 and self.node.domains() == [vm] and not self.other.vms
        return is_alive(int(self.node.paths.pid_file(vm).read_text()))

    def destroy(self, vm: str) -> None:
        """Have a VM removed, and see that nothing is left of it anywhere."""
        with self.controller.client() as client:
            gone = client.delete(f"/v1/vms/{vm}")
        assert gone.is_success, gone.text
        assert self.node.nothing_is_left() and not self.other.vms
        assert not self.qemu(vm)


@pytest.fixture(scope="module")
def started_pool(started_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One controller, the real node's proxy, and a stand-in for a reserved node."""
    real = Outside(NODE, "127.0.0.1", started_node.paths.agent_socket)
    folder = tmp_path_factory.mktemp("path")
    with pool(folder, [StandIn("other", "127.0.5.1", reserved=True)], outside=[real]) as made:
        yield made


@pytest.fixture
def way(started_pool: Pool, stopped: Agent) -> Iterator[Way]:
    """All of it up, and nothing on any node."""
    started_pool.reset()
    stopped.start(controllers=[started_pool.first.url])
    made = Way(started_pool, stopped)
    # One from before would write its tickets for the agent of the test before.
    made.restart_controller()
    yield made
    # A test that failed may have left it frozen or dead.
    made.door.process.send_signal(signal.SIGCONT)
    if made.door.process.poll() is not None:
        made.door.start()


@contextmanager
def held(node: Node) -> Iterator[None]:
    """libvirt does nothing for the length of the block, so that nothing on the node is finished."""
    daemon = int((node.root / "libvirtd.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon, signal.SIGCONT)


def refused_by(answer: httpx.Response) -> dict[str, str]:
    """The reason of each node that a VM could not be placed on."""
    assert (answer.status_code, answer.json()["code"]) == (409, "no_capacity"), answer.text
    return {reason["node"]: reason["code"] for reason in answer.json()["nodes"]}


@pytest.mark.fault(
    "kill -9 of the node proxy at each step of a spawn",
    "the node is asked again once its proxy is back; the VM is made once, on that node",
)
def test_node_proxy_killed_at_each_step_of_a_spawn(way: Way) -> None:
    """OPS-03, NP-10: the line is cut, the agent goes on, and no other node is asked."""
    for step, key in zip(SPAWN_STEPS, KEYS, strict=False):
        vm = vm_id(OWNER, key)
        with ThreadPoolExecutor() as workers:
            asked = workers.submit(way.create, key)
            way.agent.at_step(vm, "spawn", step, asked.done)
            way.door.kill()
            way.door.start()
            made = asked.result(60)
        assert (made.status_code, made.json()["node"]) == (201, NODE), made.text
        assert made.json()["vm"]["state"] == "running" and way.made_once(vm)
        way.destroy(vm)


@pytest.mark.fault(
    "kill -9 of the node proxy before it has passed a spawn on",
    "another node makes the VM, or the reason is told for each node; never two of it",
)
def test_node_proxy_dead_before_the_agent_was_asked(way: Way) -> None:
    """OPS-03: what was surely not asked is placed elsewhere; what may have been is asked again."""
    way.door.kill()
    made = way.create(next(KEYS))
    assert (made.status_code, made.json()["node"]) == (201, "other"), made.text
    way.destroy(made.json()["vm"]["id"])
    way.other.refuse = "memory_not_free"
    codes = {NODE: "node_unreachable", "other": "memory_not_free"}
    assert refused_by(way.create(next(KEYS))) == codes
    way.other.refuse = ""
    way.door.start()
    # With a connection from before, the order is in its hands when it dies; else it was not sent.
    for warm in (True, False):
        if warm:
            made = way.create(next(KEYS))
            way.destroy(made.json()["vm"]["id"])
        else:
            way.restart_controller()
        vm = vm_id(OWNER, key := next(KEYS))
        way.door.freeze()
        with ThreadPoolExecutor() as workers:
            asked = workers.submit(way.create, key)
            with way.controller.client() as client:
                wait_for("the intent", partial(succeeds, client, "GET", f"/v1/intents/{vm}"))
            time.sleep(0.2)
            way.door.kill()
            way.door.start()
            made = asked.result(60)
        assert made.status_code == 201, made.text
        assert sorted([*way.node.domains(), *way.other.vms]) == [vm]
        assert way.other.vms.keys() == ({vm} if made.json()["node"] == "other" else set())
        way.destroy(vm)


@pytest.mark.fault(
    "the node proxy is killed during a spawn and stays away",
    "the caller is told that the outcome is open; asked again when it is back, the VM is found",
)
def test_node_proxy_that_stays_away_leaves_the_outcome_open(way: Way) -> None:
    """FLEET-19: no other node is asked meanwhile, for the VM may be there; and it is."""
    vm = vm_id(OWNER, key := next(KEYS))
    way.restart_controller(request_seconds=5)
    with ThreadPoolExecutor() as workers, held(way.node):
        asked = workers.submit(way.create, key)
        way.agent.at_step(vm, "spawn", "admit", asked.done)
        way.door.kill()
        open_still = asked.result(60)
    told = open_still.json()
    assert (open_still.status_code, told["code"]) == (504, "outcome_unknown"), open_still.text
    assert told["hint"] == "ask again" and not way.other.vms
    way.door.start()
    way.restart_controller()

    def asked_again() -> httpx.Response | None:
        answer = way.create(key)
        return answer if answer.is_success else None

    found = wait_for("the VM", asked_again)
    assert (found.json()["node"], found.json()["vm"]["state"]) == (NODE, "running")
    assert way.made_once(vm)
    way.destroy(vm)


@pytest.mark.fault(
    "kill -9 of QEMU while libvirt starts it",
    "nothing is left of the VM, and another node makes it; with no other the reason is told",
)
def test_qemu_killed_while_it_starts(way: Way) -> None:
    """HOST-11, OPS-03: the caller hears the node's own reason, and the order can be repeated."""
    way.other.refuse = "memory_not_free"
    codes: list[str] = []
    # Again and again, for libvirt may be done with it before the kill.
    for delay in EARLY_KILLS * TRIES:
        vm, answer = killed_early(way, key := next(KEYS), delay)
        if answer.is_success:
            # It ran already, or was asked for again; the controller hears of it with a heartbeat.
            wait_for("its state", partial(way.made, vm))
        else:
            codes.append(refused_by(answer)[NODE])
            assert way.node.nothing_is_left()
            (record,) = way.agent.do("timeline", vm=vm)["operations"]
            assert (record["outcome"], record["code"]) == ("failed", codes[-1])
            assert way.create(key).json()["vm"]["state"] == "running"
        way.destroy(vm)
        if codes and delay == EARLY_KILLS[-1]:
            break
    assert codes and set(codes) <= {"libvirt_failed", "vm_not_running"}
    way.other.refuse = ""
    for _ in range(TRIES):
        vm, answer = killed_early(way, next(KEYS), 0)
        elsewhere = answer.json().get("node") == "other"
        if elsewhere:
            assert answer.status_code == 201 and way.node.nothing_is_left()
        way.destroy(vm)
        if elsewhere:
            break
    assert elsewhere, answer.text


def killed_early(way: Way, key: str, delay: float) -> tuple[str, httpx.Response]:
    """Order a VM and kill its QEMU so many seconds after it is seen: its id, and the answer."""
    vm = vm_id(OWNER, key)
    with ThreadPoolExecutor() as workers:
        asked = workers.submit(way.create, key)
        pid = wait_for("QEMU", partial(way.qemu, vm))
        time.sleep(delay)
        end_process(pid)
        return vm, asked.result(60)


@pytest.mark.fault(
    "kill -9 of QEMU before its guest's first code, and after",
    "the alert qemu_gone comes, the VM is stopped, and starts again when it is asked to",
)
def test_qemu_killed_once_it_runs(way: Way) -> None:
    """HLT-06: told within two heartbeats, until it is put right; nothing of the VM is lost."""
    for key in islice(KEYS, TRIES):
        made = way.create(key, image="tiny")
        vm = vm_id(OWNER, key)
        if not (spoke := killed(way, vm)):
            break
        # Its guest was quicker than the kill.
        way.destroy(vm)
    assert not spoke
    start_again(way, vm)
    way.node.wait_ready(vm)
    assert killed(way, vm)
    start_again(way, vm)
    assert way.show(vm)["uuid"] == made.json()["vm"]["uuid"]
    way.destroy(vm)


def killed(way: Way, vm: str) -> bool:
    """Kill a VM's QEMU and wait until that is told; whether its guest had spoken before."""
    end_process(wait_for("its QEMU", partial(way.qemu, vm)))
    wait_for("the alert", lambda: way.alerts().get("qemu_gone") == vm, 30)
    assert way.show(vm)["state"] == "stopped"
    steps = way.agent.do("timeline", vm=vm)["operations"][-1]["steps"]
    return "first guest code" in [step["name"] for step in steps]


def start_again(way: Way, vm: str) -> None:
    """Start a VM whose QEMU was killed, and wait until the alert has gone."""
    started = way.start(vm)
    assert (started.status_code, started.json()["vm"]["state"]) == (200, "running")
    wait_for("its end", lambda: "qemu_gone" not in way.alerts(), 30)


@pytest.mark.fault(
    "kill -9 of QEMU while its VM is recorded",
    "it is started again before the order is answered, or the alert qemu_gone comes",
)
def test_qemu_killed_while_its_vm_is_recorded(way: Way) -> None:
    """No VM is answered as made that did not run when its node was last asked."""
    vm = vm_id(OWNER, key := next(KEYS))
    with ThreadPoolExecutor() as workers:
        asked = workers.submit(way.create, key)
        way.agent.at_step(vm, "spawn", "record", asked.done)
        first = wait_for("QEMU", partial(way.qemu, vm))
        end_process(first)
        made = asked.result(60)
    assert (made.status_code, made.json()["vm"]["state"]) == (201, "running"), made.text
    assert way.node.domains() == [vm] and not way.other.vms
    wait_for("QEMU or the alert", lambda: way.qemu(vm) or way.alerts().get("qemu_gone") == vm, 30)
    assert way.qemu(vm) != first
    way.destroy(vm)
