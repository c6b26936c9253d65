"""An installation whose power is cut at a point of it that its console tells."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from lab.node_installed import INSTALL_SECONDS, plain
from lab.process import recorded
from tests.lab.pool import LabPool
from tests.lab_machines.pluggable import PluggableMachine

INSTALLED = "server"
# Serial number of the disk that the machine under test installs on, and the lab's then.
TARGET = "TARGET"
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


def cut_short(plugged: PluggableMachine, site: Path, point: float) -> str:
    """Have a machine install on the disk `TARGET`, cut its power, and return what it had said.

    Args:
        plugged: waits for a disk, or for its start.
        site: a medium with settings.
        point: where the power is cut, as a part of the whole.
    """
    machine = plugged.machine
    before = len(machine.text())
    plugged.plug(site, frozenset({TARGET}))
    end = time.monotonic() + INSTALL_SECONDS
    while progress(said := machine.text()[before:]) < point:
        assert machine.process.poll() is None, f"the machine is off:\n{said}"
        assert time.monotonic() < end, f"the installation is too slow:\n{said}"
        time.sleep(0.1)
    machine.cut_power()
    return machine.text()[before:]


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


def prefer(pool: LabPool) -> None:
    """Let the installed machine go before all that other tests do: it has to do more than they.

    A machine has a session of its own, and Linux shares processors between sessions first.
    """
    if process := recorded(pool.paths.node(INSTALLED).process):
        share = Path(f"/proc/{process.pid}/autogroup")
        if share.exists():
            share.write_text("-10")
