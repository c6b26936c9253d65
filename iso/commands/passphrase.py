"""The passphrase of private keys: from a file, or asked for; never from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iso.errors import IsoError

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

    Raises:
        IsoError: `passphrase_unusable`.
    """
    if file is not None:
        return read_passphrase(file)
    if not needed:
        return None
    title = "Passphrase for the private keys" + (", empty for none" if new else "")
    given: str = typer.prompt(title, default="", hide_input=True, confirmation_prompt=new, err=True)
    return given or None


def read_passphrase(file: Path) -> str:
    """The first line of a file.

    Raises:
        IsoError: `passphrase_unusable`: it cannot be read, or is empty.
    """
    why = "its first line is empty"
    try:
        # Of whichever system the file was written on: the end of its line is not part of it.
        if any(lines := file.read_text(encoding="utf-8").splitlines()[:1]):
            return lines[0]
    except (OSError, UnicodeDecodeError) as error:
        why = str(error)
    raise IsoError(
        f"{file} holds no passphrase: {why}",
        code="passphrase_unusable",
        hint="write it into the first line; to keep keys without one, leave the option out",
    )
