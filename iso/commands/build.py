"""`ppn iso build`: the image, unsigned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppn.cli.output import AsJson, print_json, say

if TYPE_CHECKING:
    from iso.manifest import Manifest

OUTPUT = Path("dist/iso")


def build(
    keys: Annotated[
        Path | None,
        typer.Option(help="Folder `public` of `ppn iso keys`: goes onto the medium."),
    ] = None,
    site: Annotated[
        Path | None, typer.Option(help="Signed settings of a pool, from `ppn iso config`.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the image and its parts.")] = OUTPUT,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the image from the lock: unsigned, the same bytes wherever it is built.

    Example: ppn iso build --keys ~/mypool/iso-keys/public
    """
    from iso.build import build_iso
    from iso.given import need_fit
    from iso.stage import inputs_from_lock
    from iso.times import Times
    from iso.trees import building

    # Before the long way there; the build itself looks again.
    need_fit(keys, site)
    times = Times()
    inputs = inputs_from_lock(
        output=output / "unsigned", keys=keys, site=site, times=times, offline=offline
    )
    # Not while another one builds or signs what is there.
    with building(output, "image"):
        made, image, digest = build_iso(inputs, output, times)
    manifest = made.manifest()
    if as_json:
        print_json(
            {
                "image": str(image),
                "sha256": digest,
                "bytes": image.stat().st_size,
                "root_hash": manifest.root_hash,
                "commit": manifest.commit,
                "test_keys": manifest.test_keys,
                "seconds": times.seconds,
            }
        )
        return
    show(manifest, image, digest)


def show(manifest: Manifest, image: Path, digest: str) -> None:
    """Print what was built, and what its builder should know of it."""
    say(f"{image}  {image.stat().st_size >> 20} MiB\nsha256 {digest}")
    if manifest.test_keys:
        say("test keys: anyone can sign for this image; never boot a real machine from it")
    if "+" in manifest.commit:
        say(f"of commit {manifest.commit}: nobody else can build this image again")
    say("not signed yet: `ppn iso sign` does it; `ppn iso verify --rebuild` compares it later")
