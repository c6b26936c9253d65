"""What controllers hear, and what they hear when something is wrong."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from pathlib import Path

from ppn.host.agent.client import operation_of
from ppn.host.agent.observer import Observer
from ppn.host.agent.service import Service
from ppn.host.agent.tickets import Tickets
from ppn.host.agent.timeline import Recorder, Timelines
from ppn.wire.heartbeat import Heartbeat
from tests.integration.agent.agents import Agent, Ear, listening
from tests.integration.fleet.edges import free_port
from tests.integration.host import still
from tests.integration.host.node import Node, end_process, is_alive, wait_for


def pids(node: Node) -> dict[str, int]:
    """The QEMU of each running VM."""
    return {file.stem: int(file.read_text()) for file in node.guest_pid_files()}


def identity(found: Heartbeat) -> set[tuple[str, str, str | None, str]]:
    """What must not change of a node's VMs."""
    return {(vm.id, vm.owner, vm.uuid, vm.state) for vm in found.vms}


def two_cycles(agent: Agent, ear: Ear) -> None:
    """Wait for two heartbeats that were finished after now: the second was begun after it too."""
    now = agent.do("node")["node"]["sequence"]
    wait_for("two heartbeats", lambda: sum(beat.sequence > now for beat in ear.heard) >= 2)


def test_first_heartbeat_after_a_kill_lists_every_vm(stopped: Agent) -> None:
    """HOST-06, HOST-08: the same ids and tenants, the same QEMU, without asking the controller."""
    with listening() as ear:
        stopped.start(controllers=[ear.url])
        stopped.spawn(owner="tenant-1", label="x")
        stopped.spawn(name="db", owner="tenant-2", state="stopped")
        last = (
            wait_for(
                "both VMs", lambda: {vm.state for vm in ear.last().vms} == {"running", "stopped"}
            )
            and ear.last()
        )
        before = pids(stopped.node)
        stopped.kill()
        ear.deaf = True
        stopped.start()
        # The controller comes back after the agent.
        wait_for("an attempt", lambda: ear.refused)
        known = len(ear.heard)
        ear.deaf = False
        first = wait_for("a heartbeat", lambda: ear.heard[known:])[0]
    assert first.session != last.session
    assert (first.node, first.reserved) == (last.node, last.reserved) == ("server", False)
    assert identity(first) == identity(last)
    assert pids(stopped.node) == before and all(map(is_alive, before.values()))


def test_reboot(stopped: Agent, ear: Ear) -> None:
    """HOST-07: what ran is started again, what did not is not, and none is forgotten."""
    node = stopped.node
    stopped.start(controllers=[ear.url])
    stopped.spawn(owner="tenant-1", image="tiny")
    stopped.spawn(name="db", owner="tenant-2", state="stopped")
    stopped.kill()
    for pid in pids(node).values():
        end_process(pid)
    wait_for("libvirt to see it", lambda: not pids(node))
    boot = node.paths.boot_id.read_text()
    node.paths.boot_id.write_text(boot.replace("0000-4000", "0001-4000"))
    known = len(ear.heard)
    stopped.start()
    first = wait_for("a heartbeat", lambda: ear.heard[known:])[0]
    assert {(vm.id, vm.owner, vm.state) for vm in first.vms} == {
        ("web", "tenant-1", "running"),
        ("db", "tenant-2", "stopped"),
    }
    assert stopped.logged(event="vm put in order", vm="web", repair="start")
    node.wait_ready("web")
    wait_for("the first beat", lambda: node.beat("web"))
    # Not once more by the next agent of the same boot.
    stopped.do("stop", vm="web")
    stopped.kill()
    stopped.start()
    assert {vm["state"] for vm in stopped.do("list")["vms"]} == {"stopped"}
    node.paths.boot_id.write_text(boot)


def test_discrepancies_raise_one_alert_each(stopped: Agent, ear: Ear, tmp_path: Path) -> None:
    """HLT-06: within two cycles, and until they are put right."""
    node = stopped.node
    stopped.start(controllers=[ear.url])
    stopped.spawn()
    stopped.spawn(name="db", state="stopped")
    two_cycles(stopped, ear)
    assert ear.last().alerts == ()
    end_process(pids(node)["web"])
    wait_for("libvirt to see it", lambda: not pids(node))
    sidecar = node.paths.vm("db").sidecar
    aside = sidecar.rename(node.root / "aside")
    xml = tmp_path / "foreign.xml"
    xml.write_text(
        "<domain type='qemu'><name>foreign</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    node.virsh("define", xml)
    two_cycles(stopped, ear)
    assert ear.alerts() == {
        "qemu_gone": "web",
        "sidecar_missing": "db",
        "domain_unmanaged": "foreign",
    }
    assert len(stopped.logged(event="alert raised")) == 3
    node.virsh("undefine", "foreign")
    aside.rename(sidecar)
    stopped.do("start", vm="web")
    two_cycles(stopped, ear)
    assert ear.alerts() == {} and len(stopped.logged(event="alert cleared")) == 3


class GatedRecorder(Recorder):
    """Waits between a VM's admission and the first file of it."""

    gate = threading.Event()

    def step(self, name: str) -> None:
        super().step(name)
        if name == "reserve":
            assert self.gate.wait(timeout=60)


class GatedTimelines(Timelines):
    """Timelines on a disk that takes its time."""

    recorder = GatedRecorder


def test_allocation_is_told_before_it_shows(node: Node) -> None:
    """HLT-05: the allocation changes within the request that allocates."""
    admitted = threading.Event()
    service = Service(node.paths, on_change=admitted.set, report=dict, uri=node.uri)
    service.timelines = GatedTimelines(node.paths)
    observer = Observer(service, Tickets("server"), "server", node.uri)
    spec = {"name": "web", "image": still.NAME, "vcpus": 4, "memory_mib": 256, "owner": "tenant-1"}
    spawn = operation_of({"operation": "spawn", "vm": spec})
    thread = threading.Thread(target=service.do, args=(spawn, "test-gate"))
    thread.start()
    assert admitted.wait(timeout=60)
    before = observer.look()
    GatedRecorder.gate.set()
    thread.join(timeout=120)
    after = observer.look()
    for found, state in ((before, "creating"), (after, "running")):
        assert [(vm.id, vm.owner, vm.state) for vm in found.vms] == [("web", "tenant-1", state)]
        assert found.pool.vcpus_allocated == 4
    assert before.alerts == after.alerts == ()


def test_each_change_is_told_at_once(stopped: Agent, ear: Ear) -> None:
    """HLT-01: not at the next interval."""
    stopped.start(controllers=[ear.url], heartbeat_seconds=60.0)
    ear.last()
    stopped.spawn(owner="tenant-1", vcpus=4)
    wait_for("the VM", lambda: [vm.state for vm in ear.last().vms] == ["running"], 30)
    assert ear.last().pool.vcpus_allocated == 4
    stopped.do("destroy", vm="web")
    wait_for("its end", lambda: ear.last().vms == (), 30)
    assert ear.last().pool.vcpus_allocated == 0


def test_dead_controller_delays_no_other(stopped: Agent, ear: Ear) -> None:
    """HLT-01: one that never answers, one that is not there, and one that hears."""
    taken: list[socket.socket] = []
    # How many heartbeats were heard each time when the silent one was asked.
    heard: list[int] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    taken.append(silent.accept()[0])
                    heard.append(len(ear.heard))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        dead = f"http://127.0.0.1:{silent.getsockname()[1]}"
        absent = f"http://127.0.0.1:{free_port()}"
        stopped.start(controllers=[dead, absent, ear.url], heartbeat_seconds=0.1)
        wait_for("the silent one to be asked", lambda: heard)
        # It has five seconds to answer: in that time the other hears many times.
        wait_for("five heartbeats meanwhile", lambda: len(ear.heard) - heard[-1] >= 5)
        stopped.end()
        silent.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=60)
    for channel in taken:
        channel.close()
    assert {line["controller"] for line in stopped.logged(event="controller does not hear")} <= {
        dead,
        absent,
    }


def test_missed_heartbeats_are_not_sent_later(stopped: Agent, ear: Ear) -> None:
    """The newest state only: a controller that was away is not flooded with the past."""
    ear.deaf = True
    stopped.start(controllers=[ear.url], heartbeat_seconds=0.1)
    wait_for("some misses", lambda: len({missed.sequence for missed in ear.refused}) >= 4)
    stopped.spawn(state="stopped")
    # What the agent looked at before the spawn may still be on its way.
    wait_for("a miss that tells of it", lambda: ear.refused[-1].vms)
    ear.deaf = False
    first = wait_for("a heartbeat", lambda: ear.heard)[0]
    assert [vm.id for vm in first.vms] == ["web"] and first.sequence > 4
    assert ear.next().sequence > first.sequence


def test_figures_match_the_machine(stopped: Agent, ear: Ear) -> None:
    """HLT-03, HLT-04: each VM's memory and CPU time as QEMU and the kernel have them."""
    stopped.start(controllers=[ear.url])
    stopped.spawn(image="tiny", vcpus=2, memory_mib=256)
    disks = [{"name": "data", "size_gib": 2}]
    stopped.spawn(name="db", image="tiny", vcpus=4, memory_mib=320, disks=disks)
    node = stopped.node
    for name in ("web", "db"):
        node.wait_ready(name)
    found = {vm.id: vm for vm in ear.next(2).vms}
    for name, pid in pids(node).items():
        actual = node.monitor(name, "query-balloon")["actual"] >> 20
        assert found[name].current_mib == actual
        assert found[name].vcpus == len(node.monitor(name, "query-cpus-fast"))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / 100
        assert 0 < (found[name].cpu_seconds or 0) <= used
    assert [disk.size_gib for disk in found["db"].disks] == [2]
    assert ear.last().pool.vcpus_allocated == 6
