"""Puts the sub-commands together and turns ppn's errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from ppn import __version__
from ppn.cli import exits
from ppn.cli.completion import typed_words
from ppn.cli.entry import enter, fail
from ppn.errors import PpnError

app = typer.Typer(
    name="ppn",
    help="A private VM pool: VMs, nodes, the fleet, and why something is not as it should be.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# One module of this package for each, imported when it is needed.
GROUPS = (
    "audit",
    "ca",
    "debug",
    "fleet",
    "host",
    "iso",
    "ledger",
    "mesh",
    "node",
    "reconcile",
    "tenant",
    "vm",
)

ROOT = "check the path, its permissions and the room on its disk; much of a node only root may read"


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


@app.callback(epilog=f"Exit codes:\n\n{exits.table()}")
def root(
    show_version: bool = typer.Option(
        False, "--version", callback=version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    """A private VM pool: VMs, nodes, the fleet, and why something is not as it should be.

    Data go to standard output, everything else to standard error. With --json both are JSON.
    NO_COLOR turns colours off.

    Example: ppn vm create debian-13 --vcpus 2 --memory-mib 2048
    """


def main() -> None:
    """Entry point of the `ppn` command."""
    add_groups(sys.argv[1:] or typed_words())
    try:
        enter(app)
    except PpnError as error:
        fail(error)
    except OSError as error:
        # A file that this user may not look at, a full disk: whichever command met it.
        where = f"{error.filename}: " if error.filename else ""
        fail(PpnError(f"{where}{error.strerror or error}", code="file_failed", hint=ROOT))
