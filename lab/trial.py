"""The VM that ends `scripts/lab`: ordered through the tenant proxy, as a customer's VM is."""

from __future__ import annotations

import time

from lab import ssh
from lab.errors import LabError
from lab.paths import LabPaths
from ppn.run import run

DOOR = "relay"
TOKEN = "/root/trial.token"
# The same key each time: a second `scripts/lab` finds the tenant and the VM it has.
ORDER = (
    f"test -s {TOKEN} || ppn tenant create trial --default-ceiling --token-file {TOKEN} >&2;"
    f" ppn vm create tiny --proxy https://10.8.0.1:9221 --token-file {TOKEN} --label trial"
    " --key lab-trial --vcpus 1 --memory-mib 128 --json"
)
SECONDS = 60
PAUSE_SECONDS = 1
CALL_SECONDS = 200


def spawn(lab: LabPaths) -> None:
    """Have a small VM made for a tenant, wherever a controller places it.

    Agents and controllers that have just started need a moment to hear of each other.

    Args:
        lab: a lab that is a pool.

    Raises:
        LabError: it was not made, with the last reason.
    """
    end = time.monotonic() + SECONDS
    while True:
        done = run(ssh.command(lab, DOOR, [ORDER]), timeout=CALL_SECONDS, accept=range(256))
        if done.returncode == 0:
            return
        if time.monotonic() >= end:
            raise LabError(
                f"no VM was spawned: {done.stderr.strip()}",
                code="not_spawned",
                hint=f"scripts/lab ssh {DOOR}, then journalctl -u ppn-tenant -u ppn-fleet",
            )
        time.sleep(PAUSE_SECONDS)
