"""Shows a person what is being done, step by step, and how long each step took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

console = Console(stderr=True, highlight=False)


class Step:
    """One step under way; `detail` names the part of it that is running.

    Args:
        title: what the step does.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.status = console.status(title) if console.is_terminal else None

    def detail(self, text: str) -> None:
        """Say what part of the step is running now."""
        if self.status is not None:
            self.status.update(f"{self.title} [dim]{text}[/dim]")


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Announce a step, and print its time when it has ended well.

    Args:
        title: what the step does, for example `Build the node image`.
    """
    shown = Step(title)
    start = time.monotonic()
    if shown.status is None:
        console.print(Text(f"  {title} ..."))
        yield shown
    else:
        with shown.status:
            yield shown
    console.print(Text.assemble(("✓", "green"), f" {title} ", (seconds(start), "dim")))


def note(text: str) -> None:
    """One line about something that took no time."""
    console.print(Text.assemble(("·", "dim"), f" {text}"))


def seconds(start: float) -> str:
    """Time since `start` on the monotonic clock, for people."""
    return f"{time.monotonic() - start:.1f} s"
