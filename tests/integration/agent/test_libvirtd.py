"""libvirtd hangs, or is killed: while VMs run, while one is made, before there is a QEMU."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ppn.errors import PpnError
from ppn.host.backend import Backend
from ppn.host.state import read_state
from tests.integration.agent.agents import SPAWN_STEPS, Agent, check_sound
from tests.integration.host.libvirtd import answers, kill_libvirtd, libvirtd_again
from tests.integration.host.node import Node, end_process, is_alive, wait_for

# Rounds of kills, of which some may miss what they are meant for.
TRIES = 5


def alerts(agent: Agent) -> list[str]:
    """What an agent says is wrong."""
    return [alert["code"] for alert in agent.do("node")["node"]["alerts"]]


def qemus_of(node: Node) -> list[int]:
    """Every process that runs a guest of a node, whether libvirt knows it or not."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # Another process may end while we look.
        with suppress(FileNotFoundError, ProcessLookupError):
            program, *words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"/qemu-system-" in program and str(node.paths.vms).encode() in b" ".join(words):
                found.append(int(folder.name))
    return found


@pytest.mark.fault(
    "libvirtd is killed while VMs run",
    "operations fail with the reason within their deadline, VMs run on, all recovers by itself",
)
def test_libvirtd_killed_while_vms_run(own: Agent) -> None:
    """HLT-06: the reason is told, VMs run on, and all recovers by itself."""
    node = own.node
    own.spawn()
    pid = int(node.paths.pid_file("web").read_text())
    kill_libvirtd(node)
    with pytest.raises(PpnError) as failed:
        own.spawn(name="other")
    assert failed.value.code == "libvirt_unavailable"
    assert {vm["state"] for vm in own.do("list")["vms"]} == {"unknown"}
    wait_for("the alert", lambda: alerts(own)[:1] == ["libvirt_down"])
    assert is_alive(pid)
    with libvirtd_again(node):
        wait_for("its end", lambda: not alerts(own))
        assert [(vm["id"], vm["state"]) for vm in own.do("list")["vms"]] == [("web", "running")]
        assert int(node.paths.pid_file("web").read_text()) == pid
        assert own.spawn(name="other")["vm"]["state"] == "running"
        own.do("destroy", vm="web")
        own.do("destroy", vm="other")
        assert node.nothing_is_left()


@pytest.mark.fault(
    "libvirtd hangs",
    "what is asked of it fails with the reason within the call's deadline, and VMs are unknown",
)
def test_libvirtd_that_hangs_holds_nobody(own_node: Node) -> None:
    """A deadline on every call: neither a connection nor a look waits for what does not come."""
    own_node.apply(state="stopped")
    daemon = int((own_node.root / "libvirtd.pid").read_text())
    # The connection itself must come about in that time.
    with Backend(own_node.uri, deadline=5.0) as before:
        os.kill(daemon, signal.SIGSTOP)
        try:
            for ask in (before.domains, lambda: Backend(own_node.uri, deadline=1.0)):
                with pytest.raises(PpnError) as late:
                    ask()
                assert late.value.code == "libvirt_timeout"
            seen = read_state(own_node.paths, own_node.uri, deadline=1.0)
        finally:
            os.kill(daemon, signal.SIGCONT)
    assert not seen.libvirt.ok and [vm.state for vm in seen.vms] == ["unknown"]
    wait_for("libvirtd", lambda: answers(own_node))
    assert [vm.state for vm in own_node.state().vms] == ["stopped"]
    own_node.apply(state="absent")


def states(agent: Agent) -> dict[str, str]:
    """The state of each VM."""
    return {vm["id"]: vm["state"] for vm in agent.do("list")["vms"]}


@pytest.mark.fault(
    "a QEMU hangs",
    "its VM is unknown, and said to be silent until it answers or is ended; others are served",
)
def test_a_qemu_that_hangs_holds_nobody(own: Agent) -> None:
    """HLT-06, HOST-16: libvirt waits for it, and neither the agent nor another VM does."""
    node = own.node
    own.spawn()
    hung = int(node.paths.pid_file("web").read_text())
    os.kill(hung, signal.SIGSTOP)
    wait_for("the alert", lambda: alerts(own) == ["qemu_silent"])
    # Also with a libvirtd that has just found it so.
    kill_libvirtd(node)
    wait_for("the alert", lambda: alerts(own)[:1] == ["libvirt_down"])
    with libvirtd_again(node):
        wait_for("the alert", lambda: alerts(own) == ["qemu_silent"])
        assert own.spawn(name="other")["vm"]["state"] == "running"
        assert states(own) == {"other": "running", "web": "unknown"}
        for change in ("stop", "start"):
            with pytest.raises(PpnError) as refused:
                own.do(change, vm="web")
            assert refused.value.code == "qemu_silent"
        os.kill(hung, signal.SIGCONT)
        wait_for("its end", lambda: alerts(own) == [])
        assert states(own) == {"other": "running", "web": "running"}
        # Ended, as the alert's hint says, it starts again; and it goes when it is asked to.
        os.kill(hung, signal.SIGSTOP)
        end_process(hung)
        wait_for("the next", lambda: alerts(own) == ["qemu_gone"])
        assert own.do("start", vm="web")["vm"]["state"] == "running"
        os.kill(int(node.paths.pid_file("web").read_text()), signal.SIGSTOP)
        own.do("destroy", vm="web")
        assert states(own) == {"other": "running"} and len(qemus_of(node)) == 1
        own.do("destroy", vm="other")
        assert node.nothing_is_left()


@pytest.mark.fault(
    "kill -9 of libvirtd at each step of a spawn",
    "the VM runs, or the reason is told and nothing is left; a repeated order makes it",
)
def test_libvirtd_killed_at_each_step_of_a_spawn(own: Agent) -> None:
    """HOST-11: once libvirtd is back the VM runs or is gone, and nobody has to put it right."""
    node, codes = own.node, set[str]()
    with ExitStack() as daemons:
        for step in SPAWN_STEPS * TRIES:
            with ThreadPoolExecutor() as workers:
                asked = workers.submit(own.spawn)
                own.at_step("web", "spawn", step, asked.done)
                kill_libvirtd(node)
                error = asked.exception(timeout=180)
            assert isinstance(error, PpnError | None)
            if error is not None:
                codes.add(error.code)
            daemons.close()
            daemons.enter_context(libvirtd_again(node))
            own.wait_for_order()
            there = check_sound(node, "web")
            # What a caller was told to be running is not taken back.
            assert there or error is not None, step
            assert own.spawn()["vm"]["state"] == "running"
            own.do("destroy", vm="web")
            assert node.nothing_is_left()
            if codes and step == SPAWN_STEPS[-1]:
                break
    # The way to libvirt broke, or a call on it.
    assert codes and codes <= {"libvirt_unavailable", "libvirt_failed"}


@pytest.mark.fault(
    "kill -9 of libvirtd as it starts a VM, before there is a QEMU",
    "its record of that start is dropped before its next start, and all recovers by itself",
)
def test_libvirtd_killed_before_there_is_a_qemu(own: Agent) -> None:
    """HOST-11: libvirt answers again, and no QEMU runs that it has no record of."""
    node, begun = own.node, False
    record = node.root / "run/libvirt/qemu/web.xml"
    with ExitStack() as daemons:
        for _ in range(TRIES):
            with ThreadPoolExecutor() as workers:
                asked = workers.submit(own.spawn)
                # Without a pause: a moment later libvirt knows of a QEMU.
                while not record.exists() and not asked.done():
                    pass
                kill_libvirtd(node)
                asked.exception(timeout=180)
            begun = record.exists() and " pid='0'" in record.read_text()
            daemons.close()
            daemons.enter_context(libvirtd_again(node))
            own.wait_for_order()
            assert not begun or qemus_of(node) == []
            assert own.spawn()["vm"]["state"] == "running"
            assert len(qemus_of(node)) == 1
            own.do("destroy", vm="web")
            assert node.nothing_is_left()
            if begun:
                break
    assert begun
