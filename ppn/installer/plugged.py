"""What is plugged into the machine, and the wait for somebody to change that."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 1.0
# Who swaps a disk takes one out first, and what is there in between must not be judged.
QUIET_SECONDS = 10.0

Plugged = frozenset[tuple[str, str]]


def plugged(block: Path = Path("/sys/block")) -> Plugged:
    """Every block device, as its name and the kernel's number of what is in it.

    The number grows with each device that comes and with each medium that a drive is given, so that
    two that have one name after another are told apart.

    Args:
        block: the kernel's folder of block devices.
    """
    found = set()
    for device in block.iterdir():
        # One that is taken out meanwhile is gone.
        with suppress(OSError):
            found.add((device.name, (device / "diskseq").read_text().strip()))
    return frozenset(found)


def await_change(
    before: Plugged,
    look: Callable[[], Plugged] = plugged,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until something was plugged in or taken out, and nothing more for a while.

    Args:
        before: what was there.
        look: tells what is there.
        pause: sleeps for some seconds.
    """
    now = look()
    while now == before:
        pause(LOOK_SECONDS)
        now = look()
    quiet = 0.0
    while quiet < QUIET_SECONDS:
        pause(LOOK_SECONDS)
        latest = look()
        quiet = quiet + LOOK_SECONDS if latest == now else 0.0
        now = latest
