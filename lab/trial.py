"""The VM that ends `scripts/lab`: ordered from a controller, as anybody's VM is."""

from __future__ import annotations

import time

from lab import ssh
from lab.errors import LabError
from lab.paths import LabPaths
from ppn.run import run

CONTROLLER = "relay"
# The same key each time: a second `scripts/lab` finds the VM it has.
ORDER = (
    "ppn vm create tiny --owner trial --label trial --key lab-trial"
    " --vcpus 1 --memory-mib 128 --json"
)
SECONDS = 60
PAUSE_SECONDS = 1
CALL_SECONDS = 200


def spawn(lab: LabPaths) -> None:
    """Have a small VM made, wherever the controller places it.

    Agents and controllers that have just started need a moment to hear of each other.

    Args:
        lab: a lab that is a pool.

    Raises:
        LabError: no controller had it made, with the last one's reason.
    """
    end = time.monotonic() + SECONDS
    while True:
        done = run(ssh.command(lab, CONTROLLER, [ORDER]), timeout=CALL_SECONDS, accept=range(256))
        if done.returncode == 0:
            return
        if time.monotonic() >= end:
            raise LabError(
                f"no VM was spawned: {done.stderr.strip()}",
                code="not_spawned",
                hint=f"scripts/lab ssh {CONTROLLER}, then journalctl -u ppn-fleet",
            )
        time.sleep(PAUSE_SECONDS)
