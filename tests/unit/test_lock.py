"""Locks between processes: exclusive, and never a reason to stop a whole pyinfra run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ppn.lock import FolderLocked, folder_lock

# One host's greenlet is suspended with the lock in its hands while another host asks for it.
GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys, time
from pathlib import Path
import gevent
from ppn.lock import folder_lock
from ppn.mesh.registry import record

def hold():
    with folder_lock(Path(sys.argv[1])):
        time.sleep(0.2)

holder = gevent.spawn(hold)
gevent.sleep(0)
record(Path(sys.argv[1]) / "peers.json", "server", "eQawhl3iQ50zoPl2Y8/hE9kh9+DEGvtEU0AHb/tthWQ=")
holder.get()
"""


def test_a_host_that_waits_for_the_lock_does_not_stop_the_host_that_holds_it(
    tmp_path: Path,
) -> None:
    argv = [sys.executable, "-W", "ignore", "-c", GREENLETS, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "peers.json").exists()


def test_a_lock_that_is_not_given_back_is_an_error(tmp_path: Path) -> None:
    late = folder_lock(tmp_path, timeout=0.05)
    with folder_lock(tmp_path), pytest.raises(FolderLocked, match="fuser"), late:
        pass
    with folder_lock(tmp_path, timeout=0):
        assert list(tmp_path.iterdir()) == []
