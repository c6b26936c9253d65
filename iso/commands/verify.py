"""`ppn iso verify`: whether an image is what its signer published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppn.cli.output import AsJson, print_json, say


def verify(
    image: Annotated[Path, typer.Argument(help="The ISO.")],
    keys: Annotated[
        Path, typer.Option(help="Folder `public` of the signer, from a source you trust.")
    ],
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Build it again from the lock, and compare every byte."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether an image is what its signer published, and with --rebuild what the lock makes.

    Example: ppn iso verify ppn-0.1.0.iso --keys ~/mypool/iso-keys/public
    """
    from iso.build import Inputs
    from iso.keys import TEST_WARNING
    from iso.rebuild import rebuild as build_again
    from iso.stage import inputs_from_lock, tools_from_lock
    from iso.times import Times
    from iso.verify import verify as judge

    times, tools = Times(), tools_from_lock()
    found = judge(
        image,
        signers=keys / "allowed_signers",
        certificate=keys / "db.crt",
        tools=tools,
        times=times,
    )

    def prepare(parts: Path, public: Path | None, site: Path | None) -> Inputs:
        # What the cache has is believed elsewhere; here all of it is packed again.
        return inputs_from_lock(output=parts, keys=public, site=site, times=times, fresh=True)

    digest = build_again(image, prepare, times) if rebuild else None
    manifest = found.manifest
    if as_json:
        print_json(
            {
                "signer": found.signer,
                "version": manifest.version,
                "commit": manifest.commit,
                "root_hash": manifest.root_hash,
                "test_keys": manifest.test_keys,
                "rebuilt_sha256": digest,
                "seconds": times.seconds,
            }
        )
        return
    say(f"{image} is what {found.signer} signed: ppn {manifest.version}, commit {manifest.commit}")
    if digest is not None:
        say(f"building it again gave the same bytes: sha256 {digest}")
    if manifest.test_keys:
        say(TEST_WARNING)
