"""When a machine that was refused is looked at again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ppn.installer.plugged import LOOK_SECONDS, QUIET_SECONDS, Plugged, await_change, plugged

ONE: Plugged = frozenset({("sda", "3")})
NONE: Plugged = frozenset()
OTHER: Plugged = frozenset({("sda", "4")})
QUIET = int(QUIET_SECONDS / LOOK_SECONDS)


def waited(before: Plugged, *seen: Plugged) -> int:
    """How many looks it took; the last thing seen stays."""
    looks: Iterator[Plugged] = iter(seen)
    count = 0

    def look() -> Plugged:
        nonlocal count
        count += 1
        return next(looks, seen[-1])

    await_change(before, look, lambda seconds: None)
    return count


def test_devices_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    for name, number in (("sda", "3\n"), ("sr0", "7\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "diskseq").write_text(number)
    (tmp_path / "gone").mkdir()
    assert plugged(tmp_path) == {("sda", "3"), ("sr0", "7")}


def test_nothing_happens_until_something_is_plugged_in() -> None:
    assert waited(NONE, *[NONE] * 50, ONE) == 51 + QUIET


def test_what_came_while_the_machine_was_judged_is_not_missed() -> None:
    assert waited(NONE, ONE) == 1 + QUIET


def test_a_disk_that_is_being_swapped_is_waited_for() -> None:
    """A machine without the disk that was taken out would be another one for a moment."""
    swapping = [ONE, *[NONE] * QUIET, OTHER]
    assert waited(ONE, *swapping) == len(swapping) + QUIET
