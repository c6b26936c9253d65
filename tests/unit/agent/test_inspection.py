"""What the agent tells of a VM and its node: all of it, and nothing that is a guest's secret."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ppn.errors import Refusal
from ppn.host.agent.inspection import inspect, seed_state
from ppn.host.examination import examine, service_reports
from ppn.host.paths import Paths
from ppn.host.seed import write_seed
from ppn.host.sidecar import Sidecar, write_sidecar
from ppn.mesh.paths import MeshPaths
from ppn.mesh.peers import interface_of
from ppn.mesh.render import keeper_config
from tests.unit.host.builders import make_spec
from tests.unit.mesh.pools import LAPTOP, RELAY, SERVER, pool, registry_of

UUID = "00000000-0000-4000-8000-000000000001"
SECRET = "do-not-show-4711"
NOWHERE = "qemu+unix:///system?socket=/nowhere"
SHOWN = """Id=ppn-agent.service
LoadState=loaded
ActiveState=failed
Result=exit-code
ConditionResult=yes

Id=ppn-fleet.service
LoadState=not-found
ActiveState=inactive

Id=ppn-node-proxy.service
LoadState=loaded
ActiveState=inactive
Result=success
ConditionResult=no
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A node with one VM that was made, and no libvirt."""
    found = Paths(tmp_path)
    files = found.vm("web")
    files.folder.mkdir(parents=True)
    spec = make_spec(user_data={"write_files": [{"content": SECRET}]})
    write_sidecar(files.sidecar, Sidecar(uuid=UUID, created="now", phase="ready", spec=spec))
    write_seed(files.seed, spec, UUID)
    log = found.qemu_log("web")
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    return found


def test_an_inspection_tells_all_but_the_user_data(paths: Paths) -> None:
    """CLI-03, INV-04: the keys of the user data, never what they hold; no seed content."""
    found = inspect(paths, "web", NOWHERE)
    assert found.sidecar is not None and found.sidecar["uuid"] == UUID
    assert found.user_data_keys == ("write_files",) and found.seed == "ok"
    assert {file.name for file in found.files} == {"sidecar.json", "seed.iso"}
    assert found.qemu_log[-1] == "line 99" and len(found.qemu_log) == 40
    assert [one.code for one in found.unread] == ["libvirt_unavailable"]
    assert SECRET not in found.model_dump_json()


def test_no_other_process_is_shown_as_its_qemu(paths: Paths) -> None:
    """INV-04: a QEMU that was killed leaves its number, which another process may have by now."""
    pid_file = paths.pid_file("web")
    pid_file.parent.mkdir(parents=True)
    for name, shown in (("guest=web,debug-threads=on", True), ("guest=web2", False)):
        words = ["sleep", "60"]
        with subprocess.Popen(["bash", "-c", 'exec -a "$0" "$@"', name, *words]) as process:
            pid_file.write_text(str(process.pid))
            wait_for_name(process.pid, name)
            argv = inspect(paths, "web", NOWHERE).argv
            process.kill()
        assert argv == ((name, "60") if shown else ())


def wait_for_name(pid: int, name: str) -> None:
    """Wait until a process has taken its name."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"{name}\0".encode()):
            return
        time.sleep(0.01)
    raise TimeoutError(name)


def test_a_damaged_record_is_told_as_such(paths: Paths) -> None:
    paths.vm("web").sidecar.write_text("{")
    assert "sidecar_damaged" in {one.code for one in inspect(paths, "web", NOWHERE).unread}


def test_a_seed_is_known_by_its_label(paths: Paths) -> None:
    """CLI-04."""
    seed = paths.vm("web").seed
    whole = seed.read_bytes()
    for content in (b"", bytes(len(whole)), whole[:32768], whole.replace(b"cidata", b"other!")):
        seed.write_bytes(content)
        assert seed_state(seed) == "damaged"
    seed.unlink()
    assert seed_state(seed) == "missing"


def test_a_vm_of_which_nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppn.host.agent.inspection._domain", lambda *_: "")
    with pytest.raises(Refusal, match="not on this node"):
        inspect(Paths(tmp_path), "web")


def test_services_as_systemd_tells_them() -> None:
    """CLI-03: a unit that is not installed is left out; one that is not meant to run says so."""
    found = {one.unit: (one.state, one.result) for one in service_reports(SHOWN)}
    assert found == {
        "ppn-agent.service": ("failed", "exit-code"),
        "ppn-node-proxy.service": ("inactive", "condition"),
    }


def test_a_node_without_anything_is_examined_all_the_same(tmp_path: Path) -> None:
    found = examine(Paths(tmp_path))
    assert (found.node, found.mesh, found.certificates) == ("", None, ())
    assert found.versions["ppn"] and found.at


def test_a_silent_wireguard_is_not_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLI-03: a busy node's programs outlive their deadline; that says nothing of its mesh."""
    mesh = MeshPaths(tmp_path)
    mesh.config.parent.mkdir(parents=True)
    small = pool(LAPTOP, SERVER, RELAY)
    mesh.config.write_text(keeper_config(interface_of(small, registry_of(small), "laptop")))
    wg = tmp_path / "bin/wg"
    wg.parent.mkdir()
    monkeypatch.setenv("PATH", f"{wg.parent}:{os.environ['PATH']}")
    for script, up, seconds in (("exec sleep 60", None, 0.3), ("exit 1", False, 60.0)):
        monkeypatch.setattr("ppn.host.examination.SECONDS", seconds)
        wg.write_text(f"#!/bin/sh\n{script}\n")
        wg.chmod(0o755)
        found = examine(Paths(tmp_path))
        assert found.mesh is not None and found.mesh.up is up
        assert ("wireguard" in {one.what for one in found.unread}) is (up is None)
