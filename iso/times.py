"""Shows each step of a build with its time, and remembers the times for `--json`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab.steps import Step, step


class Times:
    """The steps of one build.

    `seconds` has the time of each step that ended, by its short name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[Step]:
        """Announce a step, and take its time.

        Args:
            name: its short name, for example `squash`.
            title: what it does, for example `Pack the root`.
        """
        start = time.monotonic()
        with step(title) as shown:
            yield shown
        self.seconds[name] = round(time.monotonic() - start, 2)
