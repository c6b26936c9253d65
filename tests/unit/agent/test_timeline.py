"""The record of a VM's last operations."""

from __future__ import annotations

from pathlib import Path

from ppn.host.agent.timeline import Timelines
from ppn.host.paths import Paths


def test_a_guest_that_speaks_after_its_end_is_not_told_of(tmp_path: Path) -> None:
    """Its VM was removed meanwhile, and another one made under its name."""
    timelines = Timelines(Paths(tmp_path))
    with timelines.recording("web", "spawn", "first") as first:
        first.step("start")
    timelines.forget("web")
    first.guest_ran()
    assert timelines.read("web").operations == ()
    with timelines.recording("web", "spawn", "second") as second:
        second.step("start")
    first.guest_ran()
    second.guest_ran()
    (told,) = timelines.read("web").operations
    assert told.correlation_id == "second"
    assert [step.name for step in told.steps] == ["start", "first guest code"]
