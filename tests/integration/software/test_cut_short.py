"""An installation of ppn that is cut short: the old build stays, the next run is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.run import run
from tests.installing import Target

ROUNDS = int(os.environ.get("PPN_INSTALL_KILLS", "8"))
FULL = "No space left on device"
OLD, NEW = "d1 r1", "d2 r2"


def installed_at(folder: Path) -> Target:
    """A folder in which the first build is in use, and the archives of the second are there."""
    target = Target(folder)
    target.send("d1", "r1")
    assert target.install("d1", "r1").returncode == 0
    assert target.says() == OLD
    target.send("d2", "r2")
    return target


@pytest.mark.fault(
    "kill -9 of the installation of ppn on a node, at random points",
    "the build in use is the old one or the new one, whole; the next run installs the new one",
)
def test_a_killed_installation_is_made_good(tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("PPN_TEST_SEED", "1"))
    timed = installed_at(tmp_path / "timed")
    begun = time.monotonic()
    timed.install("d2", "r2")
    takes = time.monotonic() - begun
    cut = 0
    for number in range(ROUNDS):
        target = installed_at(tmp_path / str(number))
        program = subprocess.Popen(
            target.argv("d2", "r2"), start_new_session=True, stderr=subprocess.DEVNULL
        )
        moment = chance.uniform(0, takes)
        time.sleep(moment)
        # It is not waited for yet, so that its group is there even if it has ended.
        os.killpg(program.pid, signal.SIGKILL)
        if program.wait(timeout=30) == -signal.SIGKILL:
            cut += 1
        else:
            # It had ended by then: what was timed took longer than this one did.
            takes = moment
        assert target.says() in (OLD, NEW)
        target.send("d2", "r2")
        done = target.install("d2", "r2")
        assert done.returncode == 0, done.stderr
        assert target.says() == NEW
        left = {path.name for path in target.folder.iterdir()}
        assert left == {"dependencies-d2", "venv", "venv-r2"}
    print(f"{cut} of {ROUNDS} were cut")
    assert cut


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, to be filled."""
    folder = tmp_path / "ppn"
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], timeout=30)
    try:
        yield folder
    finally:
        run(["umount", folder], timeout=30)


@pytest.mark.fault(
    "the disk of a node fills up while ppn is installed on it",
    "a clear message; the old build stays in use, and what was half there is removed",
)
def test_a_full_disk_leaves_the_old_build_in_use(small: Path) -> None:
    """Room for so many further files, up to as many as are needed."""
    target = installed_at(small)
    used = sum(1 for _ in small.rglob("*")) + 1
    refused = 0
    for more in range(1, 100, 5):
        run(["mount", "-o", f"remount,nr_inodes={used + more}", small], timeout=30)
        done = target.install("d2", "r2")
        assert (target.says(), done.returncode) in ((OLD, done.returncode), (NEW, 0))
        if done.returncode == 0:
            break
        refused += 1
        assert FULL in done.stderr
        assert "what was in use stays in use" in done.stderr
        assert (
            not (small / "dependencies-d2").exists()
            or (small / "dependencies-d2" / "INSTALLED").read_text() == "d2\n"
        )
        for name, digest in (("dependencies-d2", "d2"), ("venv-r2", "r2")):
            mark = small / name / "INSTALLED"
            assert not (small / name).exists() or mark.read_text() == f"{digest}\n"
    assert target.says() == NEW
    assert refused > 5
