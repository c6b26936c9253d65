"""The installer that runs on a node, run here for real in a folder of its own."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path

from operations.files import INSTALLER


def install(*items: dict[str, object]) -> subprocess.CompletedProcess[str]:
    owner = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
    return subprocess.run(
        [sys.executable, "-I", "-c", INSTALLER],
        input=json.dumps([{"check": [], "mode": "0644", **owner, **item} for item in items]),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_writes_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    done = install({"path": str(path), "content": "ä\n", "mode": "0600"})
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "ä\n"
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_refused_file_leaves_all_files_as_they_were(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("old")
    done = install(
        {"path": str(good), "content": "new"},
        {"path": str(bad), "content": "x", "check": ["grep", "-q", "wanted", "{}"]},
    )
    assert done.returncode != 0
    assert f"{bad}: refused by grep" in done.stderr
    assert good.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("untouched")
    link.symlink_to(target)
    assert install({"path": str(link), "content": "own"}).returncode == 0
    assert target.read_text() == "untouched"
    assert not link.is_symlink()


def test_what_a_killed_run_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".ppn-new.file").write_text("half")
    assert install({"path": str(path), "content": "whole"}).returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_unknown_owner_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    done = install({"path": str(tmp_path / "file"), "content": "", "owner": "no-such-user"})
    assert done.returncode != 0
    assert "no-such-user" in done.stderr
    assert not (tmp_path / "file").exists()
