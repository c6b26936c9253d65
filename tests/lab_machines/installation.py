"""An installation whose power is cut at a point of it that its console tells."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.node_installed import INSTALL_SECONDS, plain
from tests.lab.pool import CHECKOUT, LabPool

INSTALLED = "server"
STEP = re.compile(r"ppn-installer: \[ *(\d+)/(\d+)\] (.*)")
COPIED = re.compile(r"ppn-installer: copied (\d+) %")
# It takes longest, so more of the cuts fall into it.
COPYING, COPY_WEIGHT = "Copy the system", 10


@dataclass(frozen=True)
class Installation:
    """How a node of the pool came to be.

    Args:
        cuts: what the console had said when the power was cut, one text for each time.
        last: what it said in the installation that came to its end.
    """

    cuts: tuple[str, ...]
    last: str


def cut_short(pool: LabPool, up: list[str], point: float) -> str:
    """Start the installation, kill QEMU at a point of it, and return what the console had said."""
    paths = pool.paths.node(INSTALLED)
    paths.install_log.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "lab", up[0], "--name", pool.name, *up[1:]]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(argv, cwd=CHECKOUT, stdout=quiet, stderr=quiet)
    try:
        end = time.monotonic() + INSTALL_SECONDS
        while progress(said := console(paths.install_log)) < point:
            assert process.poll() is None, f"the installation has ended before the cut:\n{said}"
            assert time.monotonic() < end, f"the installation is too slow:\n{said}"
            time.sleep(0.1)
        os.kill(qemu_with(paths.installing), signal.SIGKILL)
        assert process.wait(timeout=60) != 0
    finally:
        # Interrupted it ends its QEMU too.
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    return console(paths.install_log)


def console(log: Path) -> str:
    """What a console has said by now; nothing while there is no log."""
    return plain(log.read_bytes()) if log.exists() else ""


def progress(said: str) -> float:
    """How far an installation has come, from 0 to 1, by what the console said.

    Args:
        said: all of it so far.
    """
    steps = STEP.findall(said)
    if not steps:
        return 0.0
    number, count, _ = steps[-1]
    done = int(number) - 1.0
    if steps[-1][2] == COPYING:
        copied = COPIED.findall(said)
        done += COPY_WEIGHT * int(copied[-1]) / 100 if copied else 0
    elif any(title == COPYING for _, _, title in steps):
        done += COPY_WEIGHT - 1
    return done / (int(count) + COPY_WEIGHT - 1)


def qemu_with(disk: Path) -> int:
    """The number of the QEMU process that has a file for a disk."""
    for entry in Path("/proc").iterdir():
        # Another process may end while we look.
        with suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                named = words[0].endswith(b"qemu-system-x86_64")
                if named and str(disk).encode() in b" ".join(words):
                    return int(entry.name)
    raise AssertionError(f"no QEMU has {disk}")
