"""What is wrong on a node, from look to look."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ppn.host.agent.alerts import Look, alerts
from ppn.host.agent.processes import Process, strange_qemus
from ppn.host.model import LibvirtStatus, NodeState, Phase, Problem, Unmanaged, VmWeight
from ppn.host.moving.stuck import stuck
from ppn.host.paths import Paths
from tests.unit.host.builders import make_node, make_spec, make_view

WEB = make_view(make_spec())
ENFORCED = VmWeight(wanted=100, actual=100, enforced=True)
WELL = WEB.model_copy(update={"weight": ENFORCED})


def codes(node: NodeState, **fields: Any) -> set[tuple[str, str]]:
    """The alerts of a single look."""
    return {(alert.code, alert.subject) for alert in alerts(Look(node, **fields), None, ())}


def test_a_sound_node_has_no_alert() -> None:
    stopped = make_view(make_spec(name="b", state="stopped"))
    assert codes(make_node(WELL, stopped)) == set()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"state": "stopped"}, "qemu_gone"),
        ({"state": "missing"}, "domain_missing"),
        ({"state": "unknown"}, "qemu_silent"),
        ({"sidecar": "missing", "spec": None}, "sidecar_missing"),
        ({"sidecar": "damaged", "spec": None}, "sidecar_damaged"),
        ({"phase": "creating", "state": "missing"}, "vm_half_made"),
        ({"disks": ()}, "disk_lost"),
        ({"weight": VmWeight(wanted=300, actual=100)}, "weight_not_in_force"),
    ],
)
def test_each_discrepancy_is_one_alert(fields: dict[str, Any], code: str) -> None:
    """HLT-06."""
    node = make_node(WELL.model_copy(update=fields))
    assert codes(node) == {(code, "web")}
    # While an operation changes it, a VM is on its way and not wrong.
    assert codes(node, busy=frozenset({"web"})) == set()


@pytest.mark.parametrize("phase", ["moving", "moved", "arriving"])
def test_a_vm_that_stays_between_two_nodes_is_an_alert(tmp_path: Path, phase: Phase) -> None:
    """HLT-06, MIG-01: an hour after the last that was written of it, unless something is at it."""
    paths = Paths(tmp_path)
    files = paths.vm("web")
    files.moving.mkdir(parents=True)
    part = files.moving / "root.qcow2"
    now = time.time()
    for path in (files.sidecar, part, files.moving):
        path.touch()
        os.utime(path, (now - 7200, now - 7200))
    away = WELL.model_copy(update={"phase": phase, "state": "missing"})
    late = stuck(paths, (away, WEB.model_copy(update={"name": "other"})), now)
    assert late == {"web"} and codes(make_node(away), stuck=late) == {("move_stuck", "web")}
    assert codes(make_node(away), stuck=late, busy=frozenset({"web"})) == set()
    assert codes(make_node(WELL), stuck=stuck(paths, (WELL,), now)) == set()
    os.utime(part, (now - 60, now - 60))
    assert stuck(paths, (away,), now) == set()
    # A clock that was ahead does not keep it from being seen until that time has come.
    os.utime(part, (now + 3600 * 24, now + 3600 * 24))
    assert stuck(paths, (away,), now) == {"web"}


def test_strangers() -> None:
    """HLT-06: a domain nobody made at once; a process only when it stays."""
    node = make_node(unmanaged=(Unmanaged(name="x", kind="domain"),))
    assert codes(node) == {("domain_unmanaged", "x")}
    one = Look(make_node(), strange=frozenset({Process(7, 100)}))
    assert alerts(one, None, ()) == ()
    (alert,) = alerts(one, one, ())
    assert (alert.code, alert.subject) == ("qemu_unmanaged", "pid 7")
    later = Look(make_node(), strange=frozenset({Process(7, 200)}))
    assert alerts(later, one, (alert,)) == ()


def test_alerts_stay_until_put_right() -> None:
    """HLT-06: neither a silent libvirt nor an operation on the VM hides what was wrong."""
    gone = Look(make_node(WELL.model_copy(update={"state": "stopped"})))
    kept = alerts(gone, None, ())
    silent = make_node(
        WELL.model_copy(update={"state": "unknown"}),
        libvirt=LibvirtStatus(ok=False, error=Problem(code="x", message="gone")),
    )
    down = alerts(Look(silent), gone, kept)
    assert [alert.code for alert in down] == ["libvirt_down", "qemu_gone"]
    busy = alerts(Look(make_node(WELL), busy=frozenset({"web"})), None, down)
    assert [alert.code for alert in busy] == ["qemu_gone"]
    assert alerts(Look(make_node(WELL)), None, busy) == ()
    assert alerts(Look(make_node()), None, busy) == ()


def test_strange_qemus_are_those_libvirt_does_not_know(tmp_path: Path) -> None:
    """HOST-01: every QEMU has a record, or is told."""
    paths = Paths(tmp_path)
    for pid, name in ((5, "qemu-system-x86"), (6, "qemu-system-x86"), (7, "sh) qemu-system-")):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        fields = " ".join(["S", *(str(n) for n in range(1, 40))])
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} ({name}) {fields}")
    # What calls itself no text, and what ended meanwhile.
    (tmp_path / "proc/8").mkdir()
    (tmp_path / "proc/9").mkdir()
    (tmp_path / "proc/9/stat").write_bytes(b"9 (\xff\xfe) S 1")
    paths.pid_file("web").parent.mkdir(parents=True)
    paths.pid_file("web").write_text("5\n")
    # Its domain ended between the listing and the look.
    paths.pid_file("db").symlink_to("gone")
    assert strange_qemus(paths) == {Process(6, 19)}
