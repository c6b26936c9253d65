"""`ppn iso sign`: signatures, and the image with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from iso.commands.build import OUTPUT
from iso.commands.passphrase import PassphraseFile, passphrase_of
from ppn.cli.output import AsJson, print_json, say


def sign(
    keys: Annotated[
        Path | None, typer.Option(help="Folder of `ppn iso keys`; without it nothing is signed.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of `ppn iso build`.")] = OUTPUT,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign what was built, and put the signatures to it.

    Without `--keys` the signatures that lie in `signatures` of the output folder are taken: made
    by a hardware key, or published by somebody else.

    Example: ppn iso sign --keys ~/mypool/iso-keys
    """
    from iso.errors import need_files
    from iso.keys import TEST_WARNING, Keys, protected
    from iso.signing import Signatures, attach, need_fitting
    from iso.signing import sign as sign_parts
    from iso.stage import tools_from_lock
    from iso.times import Times
    from iso.trees import building
    from iso.unsigned import Unsigned

    unsigned, signatures = Unsigned(output / "unsigned"), Signatures(output / "signatures")
    if keys is not None:
        hint = "--keys takes the folder that `ppn iso keys` made, with `private` in it"
        need_files(Keys(keys).key("db"), Keys(keys).signing_key, hint=hint)
    times, tools = Times(), tools_from_lock()
    with building(output, "image"):
        test = unsigned.manifest().test_keys
        if keys is not None:
            ring = Keys(keys)
            needed = sys.stdin.isatty() and protected(ring)
            secret = passphrase_of(passphrase_file, needed=needed, new=False)
            with times.step("sign", "Sign boot file and manifest"):
                sign_parts(unsigned, ring, tools, signatures.folder, secret)
        need_fitting(unsigned, signatures, tools)
        image, digest = attach(unsigned, signatures, tools, output, times)
    if as_json:
        done = {"image": str(image), "sha256": digest, "test_keys": test, "seconds": times.seconds}
        print_json(done)
        return
    say(f"{image}  {image.stat().st_size >> 20} MiB\nsha256 {digest}")
    if test:
        say(TEST_WARNING)
