"""VMs through the agent, from order to removal."""

from __future__ import annotations

import json

import pytest

from ppn.errors import PpnError, Refusal
from tests.integration.agent.agents import Agent
from tests.integration.host import still
from tests.integration.host.node import is_alive, wait_for


def test_life_of_a_vm(agent: Agent) -> None:
    """HOST-01, HOST-05, HOST-13: spawn, attach, stop, resize, start, destroy; nothing remains."""
    node = agent.node
    made = agent.spawn(owner="tenant-1", image="tiny")
    assert made["changed"] and made["vm"]["state"] == "running"
    assert node.paths.vm("web").sidecar.exists()
    assert agent.spawn(owner="tenant-1", image="tiny")["changed"] is False
    with pytest.raises(Refusal) as other:
        agent.spawn(owner="tenant-2", image="tiny")
    assert other.value.code == "vm_exists"
    pid = int(node.paths.pid_file("web").read_text())
    disk = {"name": "data", "size_gib": 1}
    assert agent.do("attach", vm="web", disk=disk)["vm"]["disks"] == [disk]
    assert int(node.paths.pid_file("web").read_text()) == pid
    with pytest.raises(Refusal) as running:
        agent.do("resize", vm="web", memory_mib=384)
    assert running.value.code == "vm_running"
    node.wait_ready("web")
    wait_for("the first beat", lambda: node.beat("web"))
    detached = json.loads(node.ppn("host", "detach", "web", "data", "--discard").stdout)
    assert detached["vm"]["disks"] == [] and is_alive(pid)
    assert not node.paths.vm("web").disk("data").exists()
    with pytest.raises(Refusal) as absent:
        agent.do("detach", vm="web", disk="data")
    assert absent.value.code == "disk_unknown"
    assert agent.do("stop", vm="web")["vm"]["state"] == "stopped"
    assert not is_alive(pid)
    resized = agent.do("resize", vm="web", memory_mib=384, vcpus=4)["vm"]
    assert (resized["memory_mib"], resized["vcpus"], resized["state"]) == (384, 4, "stopped")
    assert agent.do("start", vm="web")["vm"]["state"] == "running"
    # The order is still the same order, whatever became of the VM since.
    assert agent.spawn(owner="tenant-1", image="tiny")["changed"] is False
    assert agent.do("destroy", vm="web") == {
        "changed": True,
        "actions": ["stop vm web", "undefine vm web", "remove the files of vm web"],
        "vm": None,
        "warnings": [],
    }
    assert node.nothing_is_left()
    assert agent.do("destroy", vm="web")["changed"] is False
    with pytest.raises(Refusal) as gone:
        agent.do("show", vm="web")
    assert gone.value.code == "vm_unknown"


def test_disks_come_and_go_through_the_agent(agent: Agent) -> None:
    """DISK-01, HOST-13: kept, attached again, discarded; QEMU stays."""
    node, disk = agent.node, {"name": "data", "size_gib": 1}
    agent.spawn(image="tiny")
    pid = int(node.paths.pid_file("web").read_text())
    file = node.paths.vm("web").disk("data")
    # To let go of a disk takes a guest that has booted, and is waited for a minute only.
    node.wait_ready("web")
    wait_for("the first beat", lambda: node.beat("web"))
    agent.do("attach", vm="web", disk=disk)
    assert agent.do("detach", vm="web", disk="data")["vm"]["disks"] == []
    assert file.exists() and agent.do("detach", vm="web", disk="data")["changed"] is False
    assert agent.do("attach", vm="web", disk=disk)["actions"][0] == "attach disk data to vm web"
    done = agent.do("detach", vm="web", disk="data", discard=True)
    assert done["actions"][-1] == "discard disk data of vm web" and not file.exists()
    with pytest.raises(Refusal) as gone:
        agent.do("detach", vm="web", disk="data", discard=True)
    assert gone.value.code == "disk_unknown"
    assert agent.spawn(image="tiny")["changed"] is False
    assert int(node.paths.pid_file("web").read_text()) == pid


def test_steps_are_timed_and_the_console_is_shown(agent: Agent) -> None:
    """Each step of a spawn stands in its timeline, up to the guest's first byte."""
    agent.spawn(image="tiny")

    def steps() -> list[str]:
        (operation,) = agent.do("timeline", vm="web")["operations"]
        found = [step["name"] for step in operation["steps"]]
        return found if found[-1] == "first guest code" else []

    names = wait_for("the guest's first byte", steps)
    assert names == [
        "admit",
        "reserve",
        "create_disk:root",
        "write_seed",
        "define",
        "start",
        "record",
        "first guest code",
    ]
    agent.node.wait_ready("web")
    # Room for all beats since.
    console = agent.do("console", vm="web", bytes=100_000)
    assert "ppn-guest ready" in console["text"] and console["size_bytes"] > 0


def test_command_goes_through_the_agent(agent: Agent) -> None:
    """`ppn host` gives the same output and ends in the same way with an agent and without."""
    node = agent.node
    with_agent = node.apply(image=still.NAME, disk_gib=2)
    assert agent.logged(operation="apply", vm="web", event="operation done")
    assert agent.do("show", vm="web")["vm"]["owner"] == "operator"
    refused = node.refused(vcpus=3, name="odd")
    probe = json.loads(node.ppn("host", "probe-kvm", "--json").stdout)
    enforced = json.loads(node.ppn("host", "enforce").stdout)
    low = json.loads(node.ppn("host", "balloon", "web", "1", "--json", accept=(3,)).stderr)
    agent.end()
    without = node.apply(image=still.NAME, disk_gib=2)
    assert without.keys() == with_agent.keys() and not without["changed"]
    assert without["vm"].keys() == with_agent["vm"].keys()
    assert without["vm"]["uuid"] == with_agent["vm"]["uuid"]
    assert refused == node.refused(vcpus=3, name="odd")
    assert probe == json.loads(node.ppn("host", "probe-kvm", "--json").stdout)
    assert enforced.keys() == json.loads(node.ppn("host", "enforce").stdout).keys()
    assert low == json.loads(node.ppn("host", "balloon", "web", "1", "--json", accept=(3,)).stderr)


def test_refused_spawn_leaves_nothing_and_says_why(agent: Agent) -> None:
    """HOST-11: the constraint with its numbers; the reason is found again later."""
    with pytest.raises(Refusal) as refused:
        agent.spawn(memory_mib=8192)
    assert (refused.value.code, refused.value.wanted) == ("memory_exceeds_node", 8192)
    assert agent.node.nothing_is_left()
    with pytest.raises(PpnError, match="memory_exceeds_node"):
        agent.do("show", vm="web")
    (record,) = agent.do("timeline", vm="web")["operations"]
    assert (record["outcome"], record["code"]) == ("failed", "memory_exceeds_node")
