"""Builds a published image again, so that anyone can tell that source and lock are all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from iso.build import KEYS, Inputs, build
from iso.enter import run_in
from iso.errors import IsoError
from iso.manifest import PATH as MANIFEST_PATH
from iso.manifest import SIGNATURE_PATH, SITE_PATHS, Manifest, entry_of, parse
from iso.reading import Opened, take_apart
from iso.signing import MANIFEST_SIGNATURE, SECONDS, UKI_SIGNATURE, Signatures, attach
from iso.source import Source
from iso.times import Times
from iso.unsigned import Unsigned
from iso.verify import take_boot_file

# From a folder for the parts, public keys and site settings, the inputs of a build.
Prepare = Callable[[Path, Path | None, Path | None], Inputs]


def rebuild(image: Path, prepare: Prepare, times: Times) -> str:
    """Build an image again, and put the signatures of the published one to it.

    Args:
        image: the published ISO; it should have been verified before.
        prepare: makes the inputs from what this checkout is, and what the image was given.
        times: takes the time of each step.

    Returns:
        The SHA-256 that both have, in hex.

    Raises:
        IsoError: `checkout_differs` when this is another source or lock than the image names,
            `rebuild_differs` when the bytes are others.
    """
    with TemporaryDirectory(prefix=".rebuild-", dir=image.resolve().parent) as name:
        work = Path(name)
        published = take_apart(image, work / "published")
        manifest = parse(published.files[MANIFEST_PATH].read_bytes())
        keys = _given(published, KEYS, work / "keys")
        inputs = prepare(work / "unsigned", keys, published.files.get(SITE_PATHS[0]))
        need_same_source(manifest, inputs.source, entry_of(inputs.lock).sha256)
        made = build(inputs, times)
        signatures = detach(published, work / "published", work / "signatures", inputs.tools)
        again, digest = attach(made, signatures, inputs.tools, work, times)
        if digest != (wanted := entry_of(image).sha256):
            parts = ", ".join(differing(made, manifest)) or "only the ISO's frame"
            kept = image.with_name(f"{image.name}.rebuilt")
            shutil.move(again, kept)
            raise IsoError(
                f"the image has the SHA-256 {wanted}, building it again gives {digest}: {parts}",
                code="rebuild_differs",
                hint=f"compare them: `diffoscope {image} {kept}`",
            )
    return digest


def _given(published: Opened, prefix: str, folder: Path) -> Path | None:
    """The files of a folder of the medium, as the builder was given them."""
    found = {p: path for p, path in published.files.items() if p.startswith(f"{prefix}/")}
    if not found:
        return None
    folder.mkdir()
    for path, source in found.items():
        shutil.copyfile(source, folder / path.rsplit("/", 1)[1])
    return folder


def need_same_source(manifest: Manifest, source: Source, lock_sha256: str) -> None:
    """Refuse to build from another source than the image was built from.

    Raises:
        IsoError: `checkout_differs`.
    """
    wanted = (manifest.commit, manifest.lock_sha256)
    here = (source.commit, lock_sha256)
    if wanted != here:
        raise IsoError(
            f"the image was built from commit {wanted[0]} with the lock {wanted[1][:12]}, "
            f"this checkout is {here[0]} with {here[1][:12]}",
            code="checkout_differs",
            hint=f"run `git checkout {wanted[0].split('+')[0]}` first",
        )


def detach(published: Opened, opened: Path, folder: Path, tools: Path) -> Signatures:
    """Take the signatures off a published image."""
    folder.mkdir()
    take_boot_file(opened, tools)
    argv = ["sbattach", "--detach", f"/mnt/signatures/{UKI_SIGNATURE}", "/mnt/opened/signed"]
    binds = {opened: "/mnt/opened", folder: "/mnt/signatures"}
    run_in(tools, argv, binds=binds, timeout=SECONDS)
    shutil.copyfile(published.files[SIGNATURE_PATH], folder / MANIFEST_SIGNATURE)
    return Signatures(folder)


def differing(made: Unsigned, manifest: Manifest) -> list[str]:
    """The parts that are not what an image's manifest says."""
    ours = made.manifest()
    names = sorted(ours.files.keys() | manifest.files.keys())
    different = [path for path in names if ours.files.get(path) != manifest.files.get(path)]
    return different + ([] if ours.uki == manifest.uki else ["the boot file"])
