"""Sidecars: whole or old after a kill, and damage is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ppn.host.sidecar import Sidecar, SidecarDamaged, read_sidecar, write_sidecar
from tests.unit.host.builders import UUID, make_spec

OLD = Sidecar(
    uuid=UUID, created="2026-01-01T00:00:00+00:00", phase="creating", spec=make_spec(label="old")
)
NEW = OLD.model_copy(update={"phase": "ready", "spec": make_spec(label="new")})

# One process for each file: the n-th ends itself with SIGKILL at the n-th system call wrapper that
# the writer goes through. Prints how each ended.
WRITER = """
import os, signal, sys
from pathlib import Path
from ppn.host.sidecar import Sidecar, write_sidecar
sidecar = Sidecar.model_validate_json(sys.argv[1])
for left, path in enumerate(map(Path, sys.argv[2:])):
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    sys.exit()
def counted(call):
    def wrapper(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapper
for name in ("open", "fdopen", "fchmod", "fsync", "replace", "close"):
    setattr(os, name, counted(getattr(os, name)))
write_sidecar(path, sidecar)
os._exit(0)
"""


def test_round_trip(tmp_path: Path) -> None:
    """HOST-05."""
    path = tmp_path / "web" / "sidecar.json"
    path.parent.mkdir()
    assert read_sidecar(path) is None
    write_sidecar(path, OLD)
    assert read_sidecar(path) == OLD
    assert path.stat().st_mode & 0o777 == 0o600


def test_kill_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """HOST-05: SIGKILL before each system call of the writer in turn."""
    paths = [tmp_path / str(point) / "web" / "sidecar.json" for point in range(20)]
    for path in paths:
        path.parent.mkdir(parents=True)
        write_sidecar(path, OLD)
    argv = [sys.executable, "-c", WRITER, NEW.model_dump_json(), *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    ended = [int(line) for line in done.stdout.split()]
    killed = ended.index(0)
    assert killed >= 6 and ended == [-signal.SIGKILL] * killed + [0] * (len(paths) - killed)
    found = [read_sidecar(path) for path in paths]
    news = found.count(NEW)
    assert found == [OLD] * (len(paths) - news) + [NEW] * news and found[0] == OLD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        OLD.model_dump_json().encode()[:-20],
        b"[]",
        OLD.model_dump_json().replace('"schema":1', '"schema":2').encode(),
        OLD.model_dump_json().replace('"vcpus":2', '"vcpus":"2"').encode(),
        OLD.model_dump_json().replace('"phase"', '"phase_"').encode(),
        b"\xff\xfe",
    ],
)
def test_damage_is_said_never_guessed(tmp_path: Path, content: bytes) -> None:
    """HOST-05."""
    path = tmp_path / "web" / "sidecar.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SidecarDamaged) as damaged:
        read_sidecar(path)
    assert str(path) in damaged.value.message


def test_sidecar_of_another_vm_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "other" / "sidecar.json"
    path.parent.mkdir()
    write_sidecar(path, OLD)
    with pytest.raises(SidecarDamaged, match="web"):
        read_sidecar(path)


def test_unreadable_sidecar_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "web" / "sidecar.json"
    path.mkdir(parents=True)
    with pytest.raises(SidecarDamaged):
        read_sidecar(path)
    os.rmdir(path)
