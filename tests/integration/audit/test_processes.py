"""Processes that append: killed at any time, traced, on a disk that is full or read-only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.audit.journal import AuditUnavailable
from ppn.audit.log import Log
from ppn.audit.verify import verify
from ppn.run import run
from tests.unit.audit.places import Place
from tests.unit.audit.samples import ORIGIN, entry

ROOT = Path(__file__).parents[3]
KILLER = Path(__file__).parent / "killer.py"
ROUNDS = int(os.environ.get("PPN_AUDIT_KILLS", "25"))
WRITER = """
import sys
from pathlib import Path
from ppn.audit import log
from tests.unit.audit.samples import ORIGIN, entry
log.PUBLISH_SECONDS = 0.05
root = Path(sys.argv[1])
with log.Log.open(root / "audit", ORIGIN, root / "audit.key") as opened:
    for number in range(300):
        opened.append(entry(3 * number))
"""


def python(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """A Python of this checkout, run to its end."""
    return subprocess.run(
        [*map(str, argv)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


@pytest.mark.fault(
    "kill -9 of two processes that append to one audit log, again and again",
    "no acknowledged entry is lost or moved; the log verifies after every kill",
)
def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """TEN-10, TEN-12: with threads, while tiles are published; `PPN_AUDIT_KILLS` rounds."""
    done = python(sys.executable, KILLER, str(ROUNDS), "7", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    acknowledged, size, _ = map(int, done.stdout.split()[-3:])
    assert size >= acknowledged > ROUNDS


def test_the_journal_is_opened_for_appending_alone(tmp_path: Path) -> None:
    """TEN-12: strace of 300 appends, published meanwhile: O_APPEND, write, fdatasync, no more."""
    trace = tmp_path / "trace"
    calls = "openat,open,creat,write,pwrite64,writev,ftruncate,truncate,rename,renameat,renameat2"
    calls += ",unlink,unlinkat,link,linkat,fallocate,mmap,lseek,fdatasync,copy_file_range,sendfile"
    done = python(
        "strace", "-f", "-y", "-e", f"trace={calls}", "-o", trace,
        sys.executable, "-c", WRITER, tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    journal = str(tmp_path / "audit" / "journal")
    lines = [line for line in trace.read_text().splitlines() if journal in line]
    opened = [line for line in lines if "openat(" in line]
    for line in opened:
        assert "O_RDONLY" in line or ("O_APPEND" in line and "O_TRUNC" not in line), line
    assert sum("O_APPEND" in line for line in opened) == 1
    used = {match[1] for line in lines if (match := re.search(r"\d+ +(\w+)\(", line))}
    assert used <= {"openat", "write", "fdatasync", "lseek"}, used
    # After each write the disk is waited for, before anything else is written.
    steps = "".join(
        "w" if " write(" in line else "s" for line in lines if "sync(" in line or " write(" in line
    )
    assert "ww" not in steps and steps.count("ws") >= 300
    writes = [line for line in lines if " write(" in line]
    # Each went to the one descriptor that was opened for appending.
    assert len(writes) >= 300
    assert len({re.sub(r".* write\((\d+)<.*", r"\1", line) for line in writes}) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for a few thousand entries."""
    folder = tmp_path / "disk"
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], timeout=30)
    try:
        yield folder
    finally:
        run(["umount", folder], timeout=30)


@pytest.mark.fault(
    "the disk of the audit log fills up, and is mounted read-only",
    "appends are refused at once; what was acknowledged stays; once there is room they go on",
)
def test_a_full_and_a_read_only_disk(small_disk: Path) -> None:
    """TEN-10: entries, tiles and checkpoint share the disk, so that each may meet its end."""
    place = Place(small_disk)
    acknowledged = 0
    with place.open() as log:
        ballast = small_disk / "ballast"
        # More than all that is published of the rest, so that one entry has room once it is gone.
        ballast.write_bytes(bytes(640 * 1024))
        # Twice, for a publication that fails gives back what it had taken.
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match="No space left"):
                for number in range(5000):
                    assert log.append(entry(3 * number)) == acknowledged
                    acknowledged += 1
        ballast.unlink()
        assert log.append(entry(0)) == acknowledged
    found = verify(place.folder, place.trusted())
    assert (found.size, found.findings) == (acknowledged + 1, ())
    run(["mount", "-o", "remount,ro", small_disk], timeout=30)
    with pytest.raises(AuditUnavailable, match="Read-only"):
        Log.open(place.folder, ORIGIN, place.key)
    run(["mount", "-o", "remount,rw", small_disk], timeout=30)
    with place.open() as log:
        assert log.append(entry(0)) == acknowledged + 1
