"""`ppn iso write`: an image onto a stick, read back and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppn.cli.output import AsJson, print_json, working
from ppn.errors import PpnError, Refusal

Image = Annotated[
    Path, typer.Argument(metavar="ISO", help="The image file.", exists=True, dir_okay=False)
]
Device = Annotated[Path, typer.Argument(metavar="DEVICE", help="The whole stick, as /dev/sdb.")]
Confirmed = Annotated[
    str | None,
    typer.Option("--yes-erase", metavar="NAME", help="Its name, when nobody is there to type it."),
]
Fixed = Annotated[bool, typer.Option("--fixed-disk", help="It may be one that is not removable.")]
Signers = Annotated[
    Path | None,
    typer.Option(
        help="Whose images are trusted: `allowed_signers` of `ppn iso keys`.",
        exists=True,
        dir_okay=False,
    ),
]


def write(
    image: Image,
    device: Device,
    yes_erase: Confirmed = None,
    fixed_disk: Fixed = False,
    signers: Signers = None,
    as_json: AsJson = False,
) -> None:
    """Write an image onto a stick, after its name was typed, and read it back.

    What is on the stick is lost. Refused: a disk in use, the system's own, one that is not
    removable, a partition, one that is read-only or too small.

    Exit codes: 0 written and compared; 3 refused, nothing was written; 1 it failed on the way.

    Example: ppn iso write ppn-0.1.0.iso /dev/sdb --signers ~/iso-keys/public/allowed_signers
    """
    from ppn.installer import published, stick

    if signers is not None:
        signer = published.check(image, signers)
        said = "and every file is as signed; its boot file is judged by `ppn iso verify`"
        typer.echo(f"{image}: signed by {signer}, {said}", err=True)
    else:
        signer = ""
        typer.echo(f"{image}: not verified, for no --signers say whom you trust", err=True)
    try:
        size = image.stat().st_size
        target = stick.read_target(device)
        stick.judge(target, size, fixed_disk=fixed_disk)
        for line in target.lines:
            typer.echo(line, err=True)
        stick.confirm(target, yes_erase if yes_erase is not None else _typed(target.disk.name))
        stick.check_unchanged(target, device)
        sha256 = _written(image, Path(target.disk.path), size)
    except OSError as error:
        raise PpnError(f"{device}: {error.strerror or error}", code="write_failed") from error
    if as_json:
        written = {"device": target.disk.path, "bytes": size, "sha256": sha256, "signer": signer}
        print_json(written)
        return
    typer.echo(f"{target.disk.path} holds {image}: {size} bytes, read back and compared")


def _typed(name: str) -> str:
    import sys

    if not sys.stdin.isatty():
        raise Refusal(
            f"nobody is there to type {name!r}: nothing was written",
            code="not_confirmed",
            constraint="device to write to",
            hint=f"in a script say --yes-erase {name}",
        )
    return str(typer.prompt(f"All that is on it will be lost. Type {name} to go on", err=True))


def _written(image: Path, device: Path, size: int) -> str:
    """Write, read back, compare; how far it is is shown on a terminal."""
    from ppn.installer import stick

    done = [0]

    def far(count: int) -> None:
        done[0] = count

    with working(f"Writing {device}", lambda: stick.percent(done[0], size)):
        sha256 = stick.write(image, device, far)
    far(0)
    with working(f"Reading {device} back", lambda: stick.percent(done[0], size)):
        stick.compare(sha256, stick.read_back(device, size, far), device)
    return sha256
