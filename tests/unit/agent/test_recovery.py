"""What an agent puts in order when it starts."""

from __future__ import annotations

from typing import Any

import pytest

from ppn.host.agent.recovery import AGAIN_SECONDS, MOST_TRIES, Repair, Tries, tasks
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
        # Whether it runs cannot be told: its QEMU does not answer.
        (RUNNING, {"phase": "creating", "state": "unknown", "digest": ""}, True, None),
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


def test_only_what_failed_at_first_is_asked_again() -> None:
    """HOST-07: a libvirt that ended meanwhile costs no VM; one that ended by itself stays so."""
    web = make_view(RUNNING, state="stopped")
    node = make_node(web, make_view(make_spec(name="db"), state="stopped"))
    (task,) = tasks(node, rebooted=True, unfinished={}, owed={"web": web.uuid})
    assert (task.vm, task.repair) == ("web", Repair.START)
    assert tasks(node, rebooted=True, unfinished={"web": "destroy"}, owed={}) == ()


def test_a_vm_made_anew_does_not_pay_for_the_one_before() -> None:
    """Its name was in a removal that failed at first and that somebody finished since."""
    node = make_node(make_view(RUNNING))
    unfinished = {"web": "destroy"}
    assert tasks(node, rebooted=True, unfinished=unfinished, owed={"web": "another"}) == ()


def test_a_failed_repair_is_tried_again_neither_at_once_nor_for_ever() -> None:
    tries = Tries()
    tries.failed("web", "u", 100.0)
    assert tries.resting(100.0 + AGAIN_SECONDS / 2) == {"web"}
    assert tries.resting(100.0 + AGAIN_SECONDS) == frozenset()
    assert tries.owed == {"web": "u"}
    for _ in range(MOST_TRIES):
        tries.failed("web", "u", 200.0)
    assert tries.owed == {} and tries.resting(200.0) == {"web"}
    tries.forget_all_but(set())
    assert tries.resting(200.0) == frozenset()
    tries.failed("web", "u", 300.0)
    tries.done("web")
    assert tries.owed == {}
