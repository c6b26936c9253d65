"""`scripts/bench`: lists the benchmarks, or runs one and ends with its JSON line."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import typer

FOLDER = Path(__file__).parent
PARTS = {"__main__", "live_build", "pool", "result", "scan", "wanted"}


def names() -> list[str]:
    """The benchmarks there are: the modules of this folder that measure."""
    found = (module.name for module in pkgutil.iter_modules([str(FOLDER)]))
    return sorted(name for name in found if name not in PARTS)


def main(
    name: str = typer.Argument("", help="Which benchmark; without it they are listed."),
    runs: int = typer.Option(5, min=1, help="How many pairs to measure."),
) -> None:
    """Measure ppn against a peer, paired in one run, and print one JSON line at the end."""
    if not name:
        for known in names():
            doc = importlib.import_module(f"bench.{known}").__doc__ or ""
            typer.echo(f"{known:12} {doc.splitlines()[0]}")
        return
    if name not in names():
        raise typer.BadParameter(f"no benchmark {name!r}; there are: {', '.join(names())}")
    typer.echo(importlib.import_module(f"bench.{name}").measure(runs).line())


if __name__ == "__main__":
    typer.run(main)
