"""How commands speak: JSON or a table on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ppn.errors import PpnError
from ppn.text import printable

# As wide as a table is where nobody watches.
WIDTH = 160
LOOK_SECONDS = 1.0

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value))


def say(text: str, **style: Any) -> None:
    """A line of text in a style, plain where NO_COLOR is set or nobody watches.

    Args:
        text: the line.
        style: as `typer.style` takes it.
    """
    typer.secho(text, color=False if os.environ.get("NO_COLOR") else None, **style)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], whole: int = 1) -> None:
    """A table without lines; the first columns are never cut off.

    Args:
        columns: their headings.
        rows: their cells.
        whole: how many columns hold what other commands are given, and so must be whole.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=True, overflow="ignore" if number < whole else "ellipsis")
    for row in rows:
        table.add_row(*map(printable, row))
    wide = None if sys.stdout.isatty() else WIDTH
    Console(markup=False, highlight=False, width=wide).print(table)


def print_error(error: PpnError, *, as_json: bool) -> None:
    """An error on standard error: what happened, the next step, and where to look for it."""
    if as_json:
        print(json.dumps({"error": error.as_dict()}), file=sys.stderr)
        return
    text = "\n".join(map(printable, str(error).split("\n")))
    print(f"ppn: {text}", file=sys.stderr)
    if error.correlation_id:
        print(f"ppn: correlation id {error.correlation_id}", file=sys.stderr)


@contextmanager
def working(title: str, look: Callable[[], str] | None = None) -> Iterator[None]:
    """Show on a terminal that something goes on, for how long, and how far it is.

    Nothing is shown where standard error is no terminal.

    Args:
        title: what goes on.
        look: asked again and again how far it is; what it raises is not shown.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    ended = threading.Event()
    began = time.monotonic()
    with Console(stderr=True).status(title) as shown:

        def tell() -> None:
            while not ended.wait(LOOK_SECONDS):
                far = _far(look)
                shown.update(f"{title}{f': {far}' if far else ''} {time.monotonic() - began:.0f} s")

        watcher = threading.Thread(target=tell, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()


def _far(look: Callable[[], str] | None) -> str:
    try:
        return look() if look is not None else ""
    except PpnError:
        return ""
