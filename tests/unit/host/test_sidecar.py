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

# Ends itself with SIGKILL at the n-th system call wrapper that the writer goes through.
WRITER = """
import os, signal, sys
from pathlib import Path
from ppn.host.sidecar import Sidecar, write_sidecar
path, text, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
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
write_sidecar(path, Sidecar.model_validate_json(text))
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
    path = tmp_path / "web" / "sidecar.json"
    path.parent.mkdir()
    found: list[str] = []
    for point in range(20):
        write_sidecar(path, OLD)
        argv = [sys.executable, "-c", WRITER, str(path), NEW.model_dump_json(), str(point)]
        ended = subprocess.run(argv, check=False, timeout=60).returncode
        sidecar = read_sidecar(path)
        assert sidecar in (OLD, NEW)
        found.append("old" if sidecar == OLD else "new")
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert found[0] == "old" and found[-1] == "new" and len(found) > 6
    assert found == sorted(found, reverse=True)


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
