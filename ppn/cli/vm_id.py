"""The id of a VM on the command line."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ppn.cli.completion import vm_ids


def check_id(text: str) -> str:
    """An id as it was typed, or by a script with an empty variable.

    Raises:
        typer.BadParameter: no VM can be called so; a slash would lead to another question.
    """
    from ppn.host.spec import NAME_PATTERN

    if re.fullmatch(NAME_PATTERN, text) is None:
        raise typer.BadParameter(f"{text!r} is no id of a VM: see ppn vm list")
    return text


Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The VM's id.",
        autocompletion=vm_ids,
        callback=check_id,
        show_default=False,
    ),
]
