"""What a source's agent touches of a VM, and what it must let alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ppn.errors import PpnError
from ppn.host.agent import departures
from ppn.host.agent.departures import Departures
from ppn.host.agent.service import Service
from ppn.host.agent.settings import AgentSettings
from ppn.host.agent.table import LockTable
from ppn.host.moving import policy
from ppn.host.moving.copies import manifest_path
from ppn.host.paths import Paths
from ppn.host.sidecar import Sidecar, write_sidecar
from ppn.wire.moving import Depart
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
