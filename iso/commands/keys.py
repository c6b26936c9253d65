"""`ppn iso keys`: the operator's keys for images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from iso.commands.passphrase import PassphraseFile, passphrase_of
from ppn.cli.output import AsJson, print_json, say


def keys(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    test: Annotated[
        bool, typer.Option("--test", help="Throwaway keys: named so, and warned of everywhere.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the operator's keys: for Secure Boot, for the manifest, for site settings.

    `public` of the folder goes onto the medium and into firmware, `private` stays with you.

    Example: ppn iso keys ~/mypool/iso-keys
    """
    from iso.keys import TEST_WARNING, make
    from iso.stage import tools_from_lock

    asked = passphrase_of(
        passphrase_file, needed=sys.stdin.isatty() and not test and not as_json, new=True
    )
    made = make(folder, tools_from_lock(), test=test, passphrase=asked)
    if as_json:
        print_json({"public": str(made.public), "private": str(made.private), "test": made.test})
        return
    say(f"{made.private}  keep these secret, and keep a copy where no network reaches")
    say(f"{made.public}  goes onto the medium: `ppn iso build --keys {made.public}`")
    if made.test:
        say(TEST_WARNING)
