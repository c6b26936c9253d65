"""The same lock makes the same tree, wherever, whenever and by whomever it is built."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from iso.cache import Cache
from iso.enter import run_in
from iso.lock import Lock
from iso.tools import tools_tree
from lab.paths import cache_folder
from ppn.run import CommandFailed

CHECKOUT = Path(__file__).resolve().parents[3]
BUILD_SECONDS = 900
# A name, an umask, a processor count, a language and a time zone that the machine does not have.
ELSEWHERE = """
echo elsewhere >/proc/sys/kernel/hostname
umask 077
exec taskset --cpu-list 0 env TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 "$@"
"""


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path of a tree: kind and mode, owner, content or target, extended attributes."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = str(status.st_rdev)
        names = os.listxattr(path, follow_symlinks=False)
        extra = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)]
        owner = (status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (oct(status.st_mode), owner, content, *extra)
    return found


def built(folder: Path, *before: str, year: str = "") -> dict[str, tuple[object, ...]]:
    """A small tree, built by another process."""
    module = "tests.integration.iso_lock.small"
    argv = [*before, sys.executable, "-m", module, str(folder), *([year] if year else [])]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return listing(folder / "small" / "root")


def test_two_builds_of_a_lock_are_the_same(tmp_path: Path) -> None:
    """ISO-02: other path, time, zone, language, umask, name, processors, order of files."""
    one = built(tmp_path / "one")
    away = ["unshare", "--uts", "sh", "-c", ELSEWHERE, "sh"]
    other = built(tmp_path / "a longer path" / "to another", *away, year="2031")
    differs = {
        path: (one.get(path), other.get(path))
        for path in sorted(one.keys() | other.keys())
        if one.get(path) != other.get(path)
    }
    assert differs == {}
    assert len(one) > 1000


@pytest.fixture(scope="module")
def tools() -> Path:
    return tools_tree(Lock.read(), Cache(cache_folder()))


def test_a_program_of_the_tools_tree_sees_no_machine(tools: Path, tmp_path: Path) -> None:
    """ISO-02: no network, no other process, no variable of ours, another host's name."""
    (tmp_path / "in").write_text("given")
    script = "cat /given; cat /etc/debian_version; ls /sys/class/net /proc; env; uname -n"
    said = run_in(
        tools,
        ["sh", "-c", script],
        timeout=60,
        binds={tmp_path / "in": "/given"},
        env={"SOURCE_DATE_EPOCH": "17"},
    ).stdout
    assert said.startswith("given13.")
    words = said.split()
    assert {"SOURCE_DATE_EPOCH=17", "TZ=UTC", "localhost"} <= set(words)
    assert not any(word.startswith(("PPN_", "PYTEST", "VIRTUAL_ENV")) for word in words)
    assert sum(word.isdecimal() for word in words) < 6
    with pytest.raises(CommandFailed):
        run_in(tools, ["sh", "-c", "exec 3<>/dev/tcp/127.0.0.1/22"], timeout=60)


def test_what_a_tool_writes_is_gone_but_where_it_was_told_to(tools: Path, tmp_path: Path) -> None:
    """ISO-02: the tree that builds stays what the lock made it."""
    before = {path.name for path in (tools / "etc").iterdir()}
    script = "echo lost >/etc/lost; rm /etc/debian_version; echo kept >/out/kept"
    run_in(tools, ["sh", "-c", script], timeout=60, binds={tmp_path: "/out"})
    assert (tmp_path / "kept").read_text() == "kept\n"
    assert {path.name for path in (tools / "etc").iterdir()} == before


def test_a_tool_that_fails_is_told(tools: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with 3"):
        run_in(tools, ["sh", "-c", "exit 3"], timeout=60)


def test_paths_with_odd_characters_work(tools: Path, tmp_path: Path) -> None:
    """A colon or comma means something to an overlay's options."""
    odd = tmp_path / "a:b,c d"
    odd.mkdir()
    run_in(tools, ["touch", "/odd/place/x"], timeout=60, binds={odd: "/odd/place"})
    assert (odd / "x").exists()
