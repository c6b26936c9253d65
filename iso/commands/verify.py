"""`ppn iso verify`: whether an image is what its signer published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppn.cli.output import AsJson, print_json, say

if TYPE_CHECKING:
    from iso.build import Inputs
    from iso.times import Times
    from iso.verify import Verified


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
    from iso.errors import need_files
    from iso.keys import TEST_WARNING
    from iso.stage import tools_from_lock
    from iso.times import Times
    from iso.verify import verify as judge

    times = Times()
    signers, certificate = keys / "allowed_signers", keys / "db.crt"
    need_files(image)
    need_files(signers, certificate, hint="--keys takes the signer's folder `public`")
    tools = tools_from_lock()
    found = judge(image, signers=signers, certificate=certificate, tools=tools, times=times)
    digest = built_again(image, times) if rebuild else None
    if as_json:
        print_json(as_dict(found, digest, times))
        return
    manifest = found.manifest
    say(f"{image} is what {found.signer} signed: ppn {manifest.version}, commit {manifest.commit}")
    if digest is not None:
        say(f"building it again gave the same bytes: sha256 {digest}")
    if manifest.test_keys:
        say(TEST_WARNING)


def built_again(image: Path, times: Times) -> str:
    """The SHA-256 of an image that this checkout's lock gives too."""
    from iso.rebuild import rebuild
    from iso.stage import inputs_from_lock

    def prepare(parts: Path, public: Path | None, site: Path | None) -> Inputs:
        # What the cache has is believed elsewhere; here all of it is packed again.
        return inputs_from_lock(output=parts, keys=public, site=site, times=times, fresh=True)

    return rebuild(image, prepare, times)


def as_dict(found: Verified, digest: str | None, times: Times) -> dict[str, object]:
    """What was found, for programs."""
    manifest = found.manifest
    return {
        "signer": found.signer,
        "version": manifest.version,
        "commit": manifest.commit,
        "root_hash": manifest.root_hash,
        "test_keys": manifest.test_keys,
        "rebuilt_sha256": digest,
        "seconds": times.seconds,
    }
