"""What a source's agent touches of a VM, and what it must let alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ppn.errors import PpnError, Refusal
from ppn.host.agent import departures
from ppn.host.agent.departures import Departures
from ppn.host.agent.service import Service
from ppn.host.agent.settings import AgentSettings
from ppn.host.agent.table import LockTable
from ppn.host.moving import policy
from ppn.host.moving.copies import manifest_path
from ppn.host.paths import Paths
from ppn.host.sidecar import Sidecar, read_sidecar, write_sidecar
from ppn.wire.moving import Depart, MoveStep
from tests.unit.moving.test_policy import sidecar, source
from tests.unit.moving.world import MOVE, VM

ORDER = Depart(vm=VM, move=MOVE, node="b", address="10.8.0.3", port=9204, secret="s" * 43)


class Libvirt:
    """Stands for a libvirt that must not be asked, or does not answer."""

    asked = 0

    def __init__(self, uri: str | None) -> None:
        Libvirt.asked += 1
        raise PpnError("no answer", code="libvirt_unavailable")


class Overtaken(LockTable):
    """A table in which the call back comes just after the order to depart, before its thread.

    Args:
        paths: the node's files.
    """

    def __init__(self, paths: Paths) -> None:
        super().__init__()
        self.paths = paths

    @contextmanager
    def operation(self, vm: str, operation: str, correlation_id: str) -> Iterator[None]:
        """As it is; and then the VM is kept after all."""
        with super().operation(vm, operation, correlation_id):
            yield
        if operation == "depart":
            write_sidecar(self.paths.vm(vm).sidecar, policy.called_back(source("moving"), MOVE))


def service(folder: Path, own: Sidecar, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A node with one VM, and a libvirt that notes whether it is asked."""
    monkeypatch.setattr(Libvirt, "asked", 0)
    monkeypatch.setattr(departures, "Backend", Libvirt)
    monkeypatch.setattr(Departures, "_admit", lambda *_: None)
    paths = Paths(folder)
    paths.vm(VM).moving.mkdir(parents=True)
    write_sidecar(paths.vm(VM).sidecar, own)
    return Service(paths, on_change=lambda: None, report=dict)


class Slow(Libvirt):
    """A libvirt that takes until it is let go on."""

    go = threading.Event()

    def __init__(self, uri: str | None) -> None:
        Libvirt.asked += 1
        self.go.wait(10)
        raise PpnError("no answer", code="libvirt_unavailable")


def depart(node: Service) -> None:
    """Have the VM sent, and wait until that has ended."""
    work = Departures(node, AgentSettings(node="a"))
    work.depart(ORDER, "test")
    work.finish()


def test_a_vm_that_was_called_back_meanwhile_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: it runs on, for nobody would start it again."""
    node = service(tmp_path, source("moving"), monkeypatch)
    node.table = Overtaken(node.paths)
    depart(node)
    assert Libvirt.asked == 0


def test_copies_of_an_earlier_move_are_never_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: an agent killed as it settled a VM leaves the manifest, which is not the VM's now."""
    node = service(tmp_path, sidecar(), monkeypatch)
    left = manifest_path(node.paths.vm(VM))
    left.write_text("{}")
    depart(node)
    assert Libvirt.asked == 1 and not left.exists()


class Doubled(LockTable):
    """A table in which the same order comes once more, before the first one's thread is started."""

    work: Departures
    times = 0

    @contextmanager
    def operation(self, vm: str, operation: str, correlation_id: str) -> Iterator[None]:
        """As it is; and then the second order."""
        with super().operation(vm, operation, correlation_id):
            yield
        if operation == "depart":
            self.times += 1
            if self.times == 1:
                self.work.depart(ORDER, "test")


def test_orders_at_one_time_are_one_departure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: of two the second's work would hide the first's, which nobody could call back."""
    node = service(tmp_path, sidecar(), monkeypatch)
    monkeypatch.setattr(departures, "Backend", Slow)
    monkeypatch.setattr(Slow, "go", threading.Event())
    table = Doubled()
    node.table = table
    table.work = work = Departures(node, AgentSettings(node="a"))
    work.depart(ORDER, "test")
    sending = [one for one in threading.enumerate() if one.name == f"move-{VM}"]
    Slow.go.set()
    work.finish()
    assert len(sending) == 1


def test_a_late_order_begins_no_move_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: also when another move of the VM has come and gone since: nobody would drive it."""
    node = service(tmp_path, sidecar(), monkeypatch)
    monkeypatch.setattr(Service, "converge", lambda *_: None)
    work = Departures(node, AgentSettings(node="a"))
    for move in (MOVE, "b" * 32):
        work.back(MoveStep(vm=VM, move=move, step="back"), "test")
    with pytest.raises(Refusal) as caught:
        work.depart(ORDER, "test")
    assert caught.value.code == "move_ended" and Libvirt.asked == 0


def test_a_late_word_of_another_move_ends_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: a move that is going on is called back by its own name alone."""
    node = service(tmp_path, sidecar(), monkeypatch)
    monkeypatch.setattr(departures, "Backend", Slow)
    monkeypatch.setattr(Slow, "go", threading.Event())
    work = Departures(node, AgentSettings(node="a"))
    work.depart(ORDER, "test")
    job = work._jobs[VM]
    with pytest.raises(Refusal):
        work.back(MoveStep(vm=VM, move="b" * 32, step="back"), "test")
    assert job.active and not job.ending.is_set()
    Slow.go.set()
    work.finish()


def test_what_is_had_again_is_its_nodes_own_also_if_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MIG-01: written first, so that it is started as any other; only what was given up."""
    order = MoveStep(vm=VM, move=MOVE, step="reclaim")
    node = service(tmp_path, source("moving"), monkeypatch)
    monkeypatch.setattr("ppn.host.agent.service.Backend", Libvirt)
    for own in (source("moving"), source("moved", "b" * 32), sidecar()):
        write_sidecar(node.paths.vm(VM).sidecar, own)
        with pytest.raises(Refusal) as caught:
            node.do(order, "test")
        assert caught.value.code == "move_unknown"
        assert read_sidecar(node.paths.vm(VM).sidecar) == own
    assert Libvirt.asked == 0
    write_sidecar(node.paths.vm(VM).sidecar, source("moved"))
    node.paths.vm(VM).moving.joinpath("root.copy").write_bytes(b"copy")
    for _ in range(2):
        with pytest.raises(PpnError) as failed:
            node.do(order, "test")
        assert failed.value.code == "libvirt_unavailable"
        assert read_sidecar(node.paths.vm(VM).sidecar) == source("ready")
    assert Libvirt.asked == 2 and not node.paths.vm(VM).moving.exists()
    with pytest.raises(Refusal) as late:
        node.do(MoveStep(vm=VM, move=MOVE, step="release"), "test")
    assert late.value.code == "move_unknown"
