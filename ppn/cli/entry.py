"""How a command begins and ends: its words are read, and what went wrong is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from ppn.cli.exits import WrongUsage, exit_of
from ppn.cli.output import print_error
from ppn.errors import PpnError


def json_wanted() -> bool:
    """Whether `--json` stands anywhere on the command line, even where it is wrong."""
    return "--json" in sys.argv[1:]


def enter(program: Callable[..., object], name: str | None = None) -> None:
    """Run what the command line names.

    Args:
        program: a typer app, or the command made of one.
        name: what it is called in messages; None for what it was called by.

    Raises:
        WrongUsage: JSON is wanted and the command line is wrong; without, typer tells it in text.
        PpnError: what the command ends with, or nobody answers what it asks.
    """
    if not json_wanted():
        program(prog_name=name)
        return
    try:
        code = program(prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        # Those of the command line know which command they are about.
        context = getattr(error, "ctx", None)
        see = f"see {context.command_path} --help" if context is not None else "see --help"
        raise WrongUsage(error.format_message(), hint=see) from error
    except typer.Abort as error:
        raise PpnError("nobody answered what was asked", code="aborted") from error
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: PpnError) -> NoReturn:
    """End with an error, told for people or for programs, and with its exit code.

    Args:
        error: what a command ended with.
    """
    print_error(error, as_json=json_wanted())
    sys.exit(exit_of(error))
