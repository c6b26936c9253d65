"""Guest images on the node: one folder each, described by its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.errors import PpnError
from ppn.host.disk import disk_sizes
from ppn.host.domain import DirectBoot
from ppn.host.model import Image
from ppn.host.spec import IMAGE_PATTERN

FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ImageDamaged(PpnError):
    """A folder among the images that cannot be used as one."""

    code = "image_damaged"


class Manifest(BaseModel):
    """What an image consists of; file names are relative to its folder."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: str = Field(pattern=IMAGE_PATTERN)
    disk: str | None = Field(default=None, pattern=FILE_PATTERN)
    kernel: str | None = Field(default=None, pattern=FILE_PATTERN)
    initrd: str | None = Field(default=None, pattern=FILE_PATTERN)
    cmdline: str = Field(default="", pattern=r"^[ -~]*$")
    sha256: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class GuestImage:
    """An image ready for use: what the state says of it, and the files a domain needs."""

    image: Image
    base: Path | None
    boot: DirectBoot | None


def read_image(folder: Path) -> GuestImage:
    """The image in a folder.

    Raises:
        ImageDamaged: no valid manifest, another image's, or a file of it is missing.
    """
    try:
        content = (folder / "manifest.json").read_bytes()
        manifest = Manifest.model_validate_json(content)
        base = folder / manifest.disk if manifest.disk else None
        size = disk_sizes(base)[0] if base is not None else 0
    except ValidationError as error:
        raise _damaged(folder, error.errors()[0]["msg"]) from error
    except OSError as error:
        raise _damaged(folder, f"{error.filename}: {error.strerror}") from error
    if manifest.name != folder.name:
        raise _damaged(folder, f"its manifest names image {manifest.name}")
    boot = None
    if manifest.kernel is not None:
        initrd = folder / manifest.initrd if manifest.initrd else None
        boot = DirectBoot(folder / manifest.kernel, initrd, manifest.cmdline)
        for file in (boot.kernel, initrd):
            if file is not None and not file.is_file():
                raise _damaged(folder, f"{file.name} is missing")
    if boot is None and base is None:
        raise _damaged(folder, "its manifest names neither a disk nor a kernel")
    image = Image(
        name=manifest.name,
        digest=hashlib.sha256(content).hexdigest(),
        direct_boot=boot is not None,
        disk_mib=size,
    )
    return GuestImage(image, base, boot)


def _damaged(folder: Path, reason: str) -> ImageDamaged:
    return ImageDamaged(f"image {folder.name}: {reason}", hint="copy the image to the node again")
