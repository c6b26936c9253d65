"""What the installer tells the person in front of the machine: on every console, line by line."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ACTIVE = Path("/sys/class/tty/console/active")
PREFIX = "ppn-installer: "
# A serial line to which nobody listens may take nothing; the installation goes on.
PATIENCE_SECONDS = 5.0

Say = Callable[[str], None]


def consoles(active: Path = ACTIVE, dev: Path = Path("/dev")) -> tuple[Path, ...]:
    """The terminals that the kernel's messages go to, such as `/dev/tty0` and `/dev/ttyS0`."""
    try:
        return tuple(dev / name for name in active.read_text().split())
    except OSError:
        return (dev / "console",)


class Console:
    """Writes lines to all consoles.

    Args:
        paths: their devices.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def say(self, text: str) -> None:
        """Write lines to every console; one that takes nothing is left out after a while.

        Args:
            text: what to say; characters that could steer a terminal are replaced.
        """
        content = "".join(f"{PREFIX}{line}\n" for line in lines_of(text)).encode()
        for path in self.paths:
            write_patiently(path, content)


def lines_of(text: str) -> list[str]:
    """Text as lines that a console can show and that steer nothing."""
    clean = (
        "".join(c if c.isascii() and c.isprintable() else "?" for c in line)
        for line in text.splitlines()
    )
    return [line.rstrip() for line in clean]


def write_patiently(path: Path, content: bytes, patience: float = PATIENCE_SECONDS) -> bool:
    """Write to a terminal that may not take anything.

    Args:
        path: its device.
        content: what to write.
        patience: seconds to wait for it in all.

    Returns:
        Whether all was written.
    """
    end = time.monotonic() + patience
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        while content:
            # A machine that stood still meanwhile finds its time over and its terminal ready.
            left = max(0.0, end - time.monotonic())
            if not select.select([], [descriptor], [], left)[1]:
                return False
            content = content[os.write(descriptor, content) :]
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
