"""`ppn vm move` against a controller that runs: to the end, and called back on the way."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.integration.host.node import PPN, wait_for
from tests.integration.moving.controllers import CONTROLLERS, FLEET_PORT, enter
from tests.integration.moving.parts import Site
from tests.integration.moving.test_move import KEEP, says
from tests.logged import logged

URL = f"http://{CONTROLLERS[0]}:{FLEET_PORT}"
MESH = os.environ | {"PPN_MESH_RANGE": "10.8.0.0/24"}


def argv(pool: Site, *words: str) -> list[str]:
    """A command of an operator on the controller's node."""
    return [*enter(pool.hub), str(PPN), "vm", "move", *words, "--controller", URL]


def move(pool: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        argv(pool, *words), env=MESH, capture_output=True, text=True, timeout=300, check=False
    )


def error(done: subprocess.CompletedProcess[str]) -> Any:
    """The error a command ended with, under `--json`."""
    return json.loads(done.stderr.splitlines()[-1])["error"]


def asked_for(pool: Site, vm: str) -> list[dict[str, Any]]:
    """What the first controller has answered to those who asked it for a move of a VM."""
    log = pool.first.folder / "controller.log"
    asked = logged(log, event="request", method="POST")
    return [one for one in asked if one["path"] == f"/v1/vms/{vm}/move"]


@pytest.mark.fault(
    "a move is called back while the line between the two nodes is cut",
    "the VM runs on where it was with its data, and nothing of it is left at the other node",
)
def test_a_move_is_watched_to_its_end_and_called_back(pool: Site) -> None:
    """MIG-01, CLI-01: with exit codes; called back, the VM runs on where it was, with its data."""
    vm = pool.create(image="based", **KEEP)
    source, there = pool.place(vm), pool.other(pool.place(vm))
    pool.begin(vm, there.name)
    with pool.cut():
        wait_for("the copies", lambda: source.view(vm).stage == "sending")
        watching = subprocess.Popen(
            argv(pool, vm, there.name, "--json"), env=MESH, stderr=subprocess.PIPE, text=True
        )
        # Asked after the move was called back, the same would begin another one.
        wait_for("who watches", lambda: len(asked_for(pool, vm)) == 2)
        done = move(pool, vm, "--cancel")
    assert done.returncode == 0, done.stderr
    assert f"{vm} stays on {source.name}: running" in done.stdout
    # Who watched it hears why it ended.
    _, said = watching.communicate(timeout=60)
    assert watching.returncode == 1 and "move_cancelled" in said
    assert pool.ended(vm)["problem"]["code"] == "move_cancelled"
    assert pool.place(vm) is source and says(source, vm, after=1)["check"] == "ok"
    assert there.node.nothing_is_left()
    none = move(pool, vm, "--cancel", "--json")
    assert (none.returncode, error(none)["code"]) == (4, "move_unknown")
    assert move(pool, vm).returncode == move(pool, vm, there.name, "--cancel").returncode == 2
    done = move(pool, vm, there.name)
    assert done.returncode == 0, done.stderr
    assert f"{vm} is on {there.name} now: running" in done.stdout
    assert pool.ended(vm)["outcome"] == "done" and says(there, vm, after=2)["check"] == "ok"
    same = move(pool, vm, there.name, "--json")
    assert (same.returncode, error(same)["code"]) == (3, "node_same")
