"""Where the agent meets what nobody planned: strange files, and work that outlasts it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import PpnError
from ppn.host.agent import app, recovery
from ppn.host.agent.alerts import Look
from ppn.host.agent.observer import Observer
from ppn.host.agent.recovery import Task
from ppn.host.agent.report import heartbeat
from ppn.host.agent.server import Server
from ppn.host.agent.service import Service
from ppn.host.agent.tickets import Tickets
from ppn.host.domain_facts import DomainFacts
from ppn.host.lock import NodeBusy, node_lock
from ppn.host.model import LedgerStatus, LibvirtStatus, NodeState, VmWeight
from ppn.host.paths import Paths
from ppn.host.sidecar import Sidecar, write_sidecar
from ppn.host.state import Domains, assemble
from ppn.wire.agent import ListVms, Operation, Request, Response
from ppn.wire.frames import PREFIX_BYTES, encode_frame, payload_length
from tests.unit.host.builders import make_node, make_spec, make_view

SESSION = "0" * 32


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A node with this machine's kernel and one stopped VM."""
    for name in ("proc", "sys"):
        (tmp_path / name).symlink_to(f"/{name}")
    found = Paths(tmp_path)
    found.vm("web").folder.mkdir(parents=True)
    sidecar = Sidecar(
        uuid="11111111-2222-4333-8444-555555555555", created="", phase="ready", spec=make_spec()
    )
    write_sidecar(found.vm("web").sidecar, sidecar)
    return found


@pytest.mark.parametrize("name", ["web.old", "Web", "web_2"])
def test_a_copy_made_by_hand_silences_no_node(paths: Paths, name: str) -> None:
    """HOST-06: no VM can be called so, so it is told as a folder, and the heartbeat is sound."""
    shutil.copytree(paths.vm("web").folder, paths.vms / name)
    node = assemble(paths, Domains({}))
    assert [other.name for other in node.unmanaged] == [name]
    told = heartbeat(node, name="server", session=SESSION, sequence=1)
    assert [vm.id for vm in told.vms] == ["web"]


def test_a_vm_whose_qemu_is_silent_is_unknown_and_counted(paths: Paths) -> None:
    """HLT-06: with all its memory; whose another silent domain is, nobody can tell."""
    silent = DomainFacts(
        name="web",
        uuid="11111111-2222-4333-8444-555555555555",
        running=True,
        owner=None,
        digest="",
        accelerator=None,
        vcpus=0,
        maximum_mib=0,
        current_mib=None,
        unused_mib=None,
        answers=False,
    )
    node = assemble(paths, Domains({"web": silent, "other": replace(silent, name="other")}))
    assert node.libvirt.ok and node.unmanaged == ()
    (web,) = node.vms
    assert (web.state, web.uuid) == ("unknown", silent.uuid)
    (stopped,) = assemble(paths, Domains({})).vms
    assert stopped.state == "missing"
    pool = node.pool
    left = pool.physical_mib - pool.reserved_mib - web.memory.maximum_mib
    assert pool.startable_mib == max(min(pool.free_mib, left), 0)


def test_a_disk_that_goes_during_a_look_fails_nobody(paths: Paths) -> None:
    """HOST-16: to remove one VM must neither end the agent nor fail another VM's operation."""
    # Listed, and gone when it is opened.
    paths.vm("web").root_disk.symlink_to("gone")
    (web,) = assemble(paths, Domains({})).vms
    assert (web.name, web.disks) == ("web", ())


def test_the_lock_is_held_until_the_last_work_ends(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOST-01: `ppn host` takes over from an agent that is gone, not from one that goes."""
    found: list[str] = []

    def work() -> None:
        time.sleep(0.3)
        try:
            with node_lock(paths.lock, timeout=0.01):
                found.append("free")
        except NodeBusy:
            found.append("held")

    class Brief(app.Agent):
        async def serve(self, uid: int | None, gid: int | None) -> None:
            self._eyes.submit(work)

    paths.agent_settings.parent.mkdir(parents=True)
    paths.agent_settings.write_text(json.dumps({"node": "server"}))
    monkeypatch.setattr(app, "Agent", Brief)
    app.run(paths)
    assert found == ["held"]


# Nothing answers here, as while libvirt is not up yet.
NOBODY = "qemu:///nowhere"


def test_the_node_is_told_while_it_is_put_in_order(paths: Paths) -> None:
    """A question does not wait until the last VM has started."""
    service = Service(paths, on_change=lambda: None, report=dict, uri=NOBODY)
    observer = Observer(service, Tickets("server"), "server", NOBODY)
    with observer._lock, ThreadPoolExecutor(1) as threads:
        report = threads.submit(observer.report).result(timeout=30)
    assert report["node"]["vms"][0]["id"] == "web"


class Failing(Service):
    """Can put nothing in order until it is told that libvirt is back."""

    repaired = 0
    is_back = False

    def repair(self, task: Task, now: Callable[[NodeState], Task | None]) -> None:
        if not self.is_back:
            raise PpnError("libvirt went away", code="libvirt_unavailable")
        self.repaired += 1


class Still(Observer):
    """Sees a node that has just booted and whose VM does not run yet."""

    def _take(self) -> Look:
        return Look(make_node(make_view(make_spec(), state="stopped")))


def test_a_vm_is_started_when_libvirt_went_away_during_the_first_try(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOST-07: the boot is remembered only when nothing is owed for it any more."""
    service = Failing(paths, on_change=lambda: None, report=dict, uri=NOBODY)
    observer = Still(service, Tickets("server"), "server", NOBODY)
    observer.look()
    observer.look()
    assert not paths.agent_boot.exists()
    service.is_back = True
    # Not at once.
    observer.look()
    assert service.repaired == 0
    monkeypatch.setattr(recovery, "AGAIN_SECONDS", 0.0)
    observer.look()
    observer.look()
    assert service.repaired == 1 and paths.agent_boot.exists()


class Weighing(Service):
    """Keeps what it was asked for, and can do nothing for the VM `bad`."""

    asked = ""

    def put_weight_right(self, vm: str) -> None:
        self.asked += f"{vm} "
        if vm == "bad":
            raise PpnError("no", code="libvirt_failed")


class Heavy(Observer):
    """Sees VMs whose weight is not the ledger's; one of them is being changed."""

    ledger = LedgerStatus(ok=True)

    def _take(self) -> Look:
        views = [
            make_view(make_spec(name=name), weight=VmWeight(wanted=300, actual=actual))
            for name, actual in (("bad", 1), ("good", 100), ("busy", 100), ("right", 300))
        ]
        return Look(make_node(*views, ledger=self.ledger), busy=frozenset({"busy"}))


def test_a_weight_that_was_changed_by_hand_is_put_right(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU-03: the ledger is authoritative; nothing is tried again at once."""
    service = Weighing(paths, on_change=lambda: None, report=dict, uri=NOBODY)
    observer = Heavy(service, Tickets("server"), "server", NOBODY)
    observer.look()
    observer.look()
    assert service.asked == "bad good "
    monkeypatch.setattr("ppn.host.agent.observer.AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("ppn.host.agent.observer.MOST_WEIGHTS", 1)
    observer.look()
    assert service.asked == "bad good bad "
    # Without a ledger to trust, what it said last stays in force.
    Heavy.ledger = LedgerStatus(ok=False)
    observer.look()
    assert service.asked == "bad good bad "


def test_an_agent_that_stops_takes_nothing_more_over_an_open_line(tmp_path: Path) -> None:
    """NP-10: the node proxy keeps its lines; what would go unanswered is not begun."""

    begun, go_on = threading.Event(), threading.Event()

    def slowly(_body: Operation, _correlation_id: str) -> dict[str, Any]:
        begun.set()
        go_on.wait(60)
        return {}

    server = Server(slowly, Tickets("server"), proxy_uid=os.getuid())
    asked = Request(correlation_id="test-0001", deadline_seconds=10.0, body=ListVms())
    frame = encode_frame(asked.model_dump_json().encode())

    async def ask(line: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> Response:
        line[1].write(frame)
        size = payload_length(await line[0].readexactly(PREFIX_BYTES))
        return Response.model_validate_json(await line[0].readexactly(size))

    async def scene() -> list[Response]:
        path = tmp_path / "agent.sock"
        await server.listen(path, None)
        lines = [await asyncio.open_unix_connection(str(path)) for _ in range(2)]
        first = asyncio.create_task(ask(lines[0]))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(server.close(path, 60.0))
        await asyncio.sleep(0.1)
        late = await ask(lines[1])
        go_on.set()
        answers = [late, await first]
        await closing
        for _, writer in lines:
            writer.close()
        return answers

    late, early = asyncio.run(scene())
    server.finish()
    assert late.problem is not None and late.problem.code == "agent_unavailable"
    assert early.result == {}


class Late(Observer):
    """Sees a libvirt that is not up at first, and then a VM made anew under an old name."""

    node = make_node(make_view(make_spec(), state="unknown"), libvirt=LibvirtStatus(ok=False))

    def _take(self) -> Look:
        return Look(self.node)


def test_a_vm_made_anew_before_libvirt_is_looked_at_stays(paths: Paths) -> None:
    """The removal that was cut short was finished by who asked for it again."""
    service = Failing(paths, on_change=lambda: None, report=dict, uri=NOBODY)
    service.is_back = True
    observer = Late(service, Tickets("server"), "server", NOBODY)
    observer._unfinished = {"web": "destroy"}
    observer.look()
    Late.node = make_node(make_view(make_spec(), uuid="11111111-2222-4333-8444-555555555555"))
    observer.look()
    assert service.repaired == 0
