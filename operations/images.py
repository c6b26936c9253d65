"""Operations on guest images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from pathlib import Path

from pyinfra import host
from pyinfra.api import (
    FileUploadCommand,
    FunctionCommand,
    OperationValueError,
    QuoteString,
    StringCommand,
    operation,
)

from facts.images import FOLDER, ImageDigests
from operations.failure import fail, unreadable

# The folder gets its name only when every file in it has the digest the manifest gives.
SCRIPT = r"""set -eu
cd "$1"; printf '%s\n' "$3" | sha256sum --quiet -c -; sync -f .; mv -T -- "$1" "$2"
"""


@operation()
def present(
    image: str, folder: str
) -> Generator[StringCommand | FunctionCommand | FileUploadCommand, None, None]:
    """Declare that a node has a guest image; an image never changes under its name.

    + image: its name, which VMs refer to.
    + folder: the image on this machine: `manifest.json` and the files it names.

    **Example:**

    .. code:: python

        images.present(name="Debian", image="debian-13", folder="images/debian-13")
    """
    manifest = read_manifest(Path(folder))
    digests = host.get_fact(ImageDigests)
    if digests is None:
        yield unreadable("the guest images")
        return
    if digests.get(image) == manifest.digest:
        host.noop(f"image {image} is there")
        return
    if image in digests:
        yield fail(
            f"image {image}: the node has another one of that name, and VMs may stand on its disk. "
            "Give the new image a new name, such as one with a date."
        )
        return
    final, staging = f"{FOLDER}/{image}", f"{FOLDER}/.{image}.new"
    yield StringCommand("rm -rf", QuoteString(staging), "&& mkdir -p -m 0755", QuoteString(staging))
    for file in ["manifest.json", *manifest.sums]:
        yield FileUploadCommand(str(Path(folder) / file), f"{staging}/{file}")
    sums = "\n".join(f"{digest}  {file}" for file, digest in manifest.sums.items())
    yield StringCommand(
        "sh", "-c", QuoteString(SCRIPT), "ppn-image", *map(QuoteString, (staging, final, sums))
    )


class Manifest:
    """What the image folder says of itself.

    Args:
        content: the bytes of `manifest.json`.
    """

    def __init__(self, content: bytes) -> None:
        self.digest = hashlib.sha256(content).hexdigest()
        self.sums: dict[str, str] = json.loads(content)["sha256"]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an image folder on this machine.

    Raises:
        OperationValueError: the folder, its manifest or a file it names is missing.
    """
    try:
        manifest = Manifest((folder / "manifest.json").read_bytes())
    except (OSError, ValueError, KeyError) as error:
        raise OperationValueError(f"image folder {folder}: no manifest.json ({error})") from error
    for file in manifest.sums:
        if not (folder / file).is_file():
            raise OperationValueError(f"image folder {folder}: {file} is named but not there")
    return manifest
