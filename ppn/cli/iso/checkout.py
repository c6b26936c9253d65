"""Commands that need ppn's checkout: its `iso` folder holds the builder, which no wheel carries."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import ppn
from ppn.cli.output import AsJson
from ppn.errors import Refusal

# What stands after the command is the builder's to understand, `--help` too.
HANDED_ON = {"ignore_unknown_options": True}

Words = Annotated[
    list[str] | None, typer.Argument(help="Options and arguments; `--help` lists them.")
]


def build(words: Words = None, as_json: AsJson = False) -> None:
    """Build the image from the lock: unsigned, the same bytes wherever it is built.

    Example: ppn iso build --offline
    """
    hand_over("build", words, as_json=as_json)


def cache(words: Words = None, as_json: AsJson = False) -> None:
    """Have every file that the lock names, and carry them to where there is no network.

    Example: ppn iso cache export /media/stick/ppn
    """
    hand_over("cache", words, as_json=as_json)


def keys(words: Words = None, as_json: AsJson = False) -> None:
    """Make the operator's keys: for Secure Boot, for the manifest, for site settings.

    Example: ppn iso keys ~/mypool/iso-keys
    """
    hand_over("keys", words, as_json=as_json)


def lock(words: Words = None, as_json: AsJson = False) -> None:
    """Refresh the lock of packages from the archive, and show what changed.

    Example: ppn iso lock --check
    """
    hand_over("lock", words, as_json=as_json)


def sign(words: Words = None, as_json: AsJson = False) -> None:
    """Sign what was built, and put the signatures to it.

    Example: ppn iso sign --keys ~/mypool/iso-keys
    """
    hand_over("sign", words, as_json=as_json)


def verify(words: Words = None, as_json: AsJson = False) -> None:
    """Say whether an image is what its signer published, and with --rebuild what the lock makes.

    Example: ppn iso verify ppn-0.1.0.iso
    """
    hand_over("verify", words, as_json=as_json)


def hand_over(command: str, words: Sequence[str] | None, *, as_json: bool) -> NoReturn:
    """Go on as the builder of the checkout that this package is part of.

    Args:
        command: the builder's command.
        words: its options and arguments.
        as_json: whether it is to speak JSON.

    Raises:
        Refusal: this package is installed without a checkout.
    """
    folder = Path(ppn.__file__).resolve().parents[1]
    if not (folder / "iso" / "__main__.py").is_file():
        raise Refusal(
            f"`ppn iso {command}` is part of ppn's source, and {folder} does not hold it",
            code="checkout_needed",
            constraint="a checkout of ppn",
            hint=f"get the source, then run `scripts/iso {command}` in it",
        )
    # Not the current folder's modules: there may be something called `iso`.
    argv = [sys.executable, "-P", "-m", "iso", command, *(words or ())]
    argv += ["--json"] if as_json else []
    search = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    os.execve(argv[0], argv, os.environ | {"PYTHONPATH": search})
