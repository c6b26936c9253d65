"""`python -m iso`: the image's builder, as `ppn iso` and `scripts/iso` start it."""

from __future__ import annotations

from importlib import import_module

import typer

from ppn.cli.entry import enter, fail
from ppn.errors import PpnError

# One module of iso/commands for each.
COMMANDS = ("build", "cache", "keys", "lock", "sign", "verify")

app = typer.Typer(
    name="iso",
    help="The provisioning image: built from a lock, signed, verified.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """The provisioning image: built from a lock, signed, verified."""


def main() -> None:
    """Run the command that the command line names."""
    for name in COMMANDS:
        app.command()(getattr(import_module(f"iso.commands.{name}"), name))
    try:
        enter(app, "ppn iso")
    except PpnError as error:
        fail(error)
    except OSError as error:
        # A full disk, a missing right: it says which file.
        fail(PpnError(str(error), code="file_unusable"))


if __name__ == "__main__":
    main()
