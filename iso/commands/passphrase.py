"""The passphrase of private keys: from a file, or asked for; never from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File with the private keys' passphrase.")
]


def passphrase_of(file: Path | None, *, needed: bool, new: bool) -> str | None:
    """The passphrase that protects private keys.

    Args:
        file: that holds it in its first line.
        needed: whether to ask for it where there is no file.
        new: whether it is to be chosen now, and so typed twice.

    Returns:
        It; None where the keys have none.
    """
    if file is not None:
        return file.read_text(encoding="utf-8").split("\n", 1)[0]
    if not needed:
        return None
    title = "Passphrase for the private keys" + (", empty for none" if new else "")
    given: str = typer.prompt(title, default="", hide_input=True, confirmation_prompt=new, err=True)
    return given or None
