"""Puts the sub-commands together and turns ppn's errors into exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from ppn import __version__
from ppn.errors import PpnError, Refusal

app = typer.Typer(
    name="ppn",
    help="A private VM pool: VMs, what this node runs, mesh paths, ledger, certificates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

GROUPS = ("audit", "ca", "host", "ledger", "mesh", "tenant", "vm")
EXIT_ERROR = 1
EXIT_REFUSED = 3


def add_groups(words: Sequence[str]) -> None:
    """Give the app its sub-commands; when the first word names a group, that one alone.

    A node is asked for its state often, and importing the other groups takes as long as that.

    Args:
        words: the command line without the program.
    """
    chosen = words[:1] if words and words[0] in GROUPS else GROUPS
    for name in chosen:
        group = import_module(f"ppn.cli.{name}")
        app.add_typer(getattr(group, f"{name}_app"), name=name)


def version(show: bool) -> None:
    """Print the version and end."""
    if show:
        typer.echo(f"ppn {__version__}")
        raise typer.Exit


@app.callback()
def root(
    show_version: bool = typer.Option(
        False, "--version", callback=version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    """A private VM pool: VMs, what this node runs, mesh paths, ledger, certificates.

    Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused, with the constraint that binds.
    """


def main() -> None:
    """Entry point of the `ppn` command."""
    add_groups(sys.argv[1:])
    try:
        app()
    except PpnError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": error.as_dict()}), file=sys.stderr)
        else:
            print(f"ppn: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED if isinstance(error, Refusal) else EXIT_ERROR)
