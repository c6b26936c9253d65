"""What an agent puts in order when it starts."""

from __future__ import annotations

from typing import Any

import pytest

from ppn.host.agent.recovery import Repair, tasks
from ppn.host.model import LibvirtStatus
from tests.unit.host.builders import make_node, make_spec, make_view

RUNNING, STOPPED = make_spec(), make_spec(state="stopped")


@pytest.mark.parametrize(
    ("spec", "fields", "rebooted", "repair"),
    [
        # An agent that starts again touches nothing that is whole, running or not.
        (RUNNING, {}, False, None),
        (RUNNING, {"state": "stopped"}, False, None),
        (STOPPED, {}, True, None),
        # After a boot, what shall run is started, also when its domain is gone.
        (RUNNING, {"state": "stopped"}, True, Repair.START),
        (RUNNING, {"state": "missing", "digest": ""}, True, Repair.START),
        (RUNNING, {}, True, None),
        # A creation that was cut short.
        (RUNNING, {"phase": "creating"}, False, Repair.FINISH),
        (RUNNING, {"phase": "creating", "state": "stopped"}, False, Repair.TAKE_BACK),
        (RUNNING, {"phase": "creating", "state": "missing"}, True, Repair.TAKE_BACK),
        (STOPPED, {"phase": "creating"}, False, Repair.FINISH),
        (STOPPED, {"phase": "creating", "digest": ""}, False, Repair.TAKE_BACK),
        # What was it? Nothing is done on a guess.
        (RUNNING, {"sidecar": "damaged", "spec": None, "state": "stopped"}, True, None),
    ],
)
def test_repairs(spec: Any, fields: dict[str, Any], rebooted: bool, repair: Repair | None) -> None:
    """HOST-06, HOST-07: a running VM is never stopped, none is forgotten."""
    node = make_node(make_view(spec).model_copy(update=fields))
    found = tasks(node, rebooted=rebooted, unfinished={})
    assert [task.repair for task in found] == ([repair] if repair else [])
    wanted = {Repair.TAKE_BACK: "absent"}
    assert all(task.spec.state == wanted.get(task.repair, spec.state) for task in found)


def test_removal_cut_short_is_finished() -> None:
    """A VM half removed is not started again by the boot that followed."""
    node = make_node(make_view(RUNNING, state="missing"))
    (task,) = tasks(node, rebooted=True, unfinished={"web": "destroy"})
    assert (task.repair, task.spec.state) == (Repair.REMOVE, "absent")
    (other,) = tasks(node, rebooted=True, unfinished={"web": "stop"})
    assert other.repair is Repair.START


def test_nothing_is_done_to_what_is_being_changed_or_cannot_be_seen() -> None:
    half = make_view(RUNNING, phase="creating", state="missing")
    assert tasks(make_node(half), rebooted=True, unfinished={}, busy={"web"}) == ()
    silent = make_node(half, libvirt=LibvirtStatus(ok=False))
    assert tasks(silent, rebooted=True, unfinished={}) == ()
