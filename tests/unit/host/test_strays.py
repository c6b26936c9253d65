"""Files among the VMs' that belong to none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ppn.host.agent.alerts import Look, alerts
from ppn.host.agent.report import heartbeat
from ppn.host.paths import Paths
from ppn.host.state import Domains, assemble
from ppn.host.strays import LEFT_SECONDS, strays
from tests.unit.host.builders import make_node


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A node with the files of one VM, all its own."""
    found = Paths(tmp_path)
    folder = found.vm("web").folder
    folder.mkdir(parents=True)
    own = ("sidecar.json", "disk.qcow2", "data-2.qcow2", "seed.iso", "serial.log", "serial.log.0")
    for name in own:
        (folder / name).touch()
    # What is on its way to another node, or from one.
    (folder / "moving").mkdir()
    return found


def test_a_vms_own_files_are_no_strays(paths: Paths) -> None:
    assert strays(paths, ["web"]) == ()
    assert strays(paths, ["gone"]) == ()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("stray.qcow2", "disk_orphaned"),
        ("web/Data.qcow2", "disk_orphaned"),
        ("web/old.IMG", "disk_orphaned"),
        ("web/snapshot.qcow2.bak", "file_unmanaged"),
        ("notes.txt", "file_unmanaged"),
        ("web/core", "file_unmanaged"),
    ],
)
def test_each_stray_is_one_alert(paths: Paths, name: str, code: str) -> None:
    """HLT-06, REC-02: an orphan disk too."""
    (paths.vms / name).touch()
    node = make_node(unmanaged=strays(paths, ["web"]))
    (found,) = alerts(Look(node), None, ())
    assert (found.code, found.subject) == (code, name)
    busy = alerts(Look(node, busy=frozenset({"web"})), None, ())
    assert bool(busy) == ("/" not in name)


@pytest.mark.parametrize("name", [".web.new", "web/.sidecar.json.0123.new"])
def test_what_a_killed_run_left_is_told_once_it_is_old(paths: Paths, name: str) -> None:
    path = paths.vms / name
    path.touch()
    assert strays(paths, ["web"]) == ()
    old = time.time() - LEFT_SECONDS - 60
    os.utime(path, (old, old))
    (found,) = alerts(Look(make_node(unmanaged=strays(paths, ["web"]))), None, ())
    assert (found.code, found.subject) == ("leftover_kept", name)


def test_a_name_that_is_no_text_silences_no_node(paths: Paths) -> None:
    """HOST-06: it is told as its bytes."""
    (paths.vms / os.fsdecode(b"\xff.qcow2")).touch()
    (paths.vms / os.fsdecode(b"\xfe-folder")).mkdir()
    for name in ("proc", "sys"):
        (paths.root / name).symlink_to(f"/{name}")
    node = assemble(paths, Domains({}))
    assert {one.name for one in node.unmanaged} == {"\\xff.qcow2", "\\xfe-folder"}
    raised = alerts(Look(node), None, ())
    told = heartbeat(node, name="server", session="0" * 32, sequence=1, alerts=raised)
    assert told.model_dump_json()
