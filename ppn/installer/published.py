"""Whether an image file is what its signer published, as far as this machine can tell alone.

Its manifest's signature, and every file of the medium by the manifest. That the boot file is signed
for the firmware, and that the root's hash tree is whole, `ppn iso verify` tells.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path

from pycdlib import PyCdlib
from pycdlib.pycdlibexception import PyCdlibException

from ppn import sshsig
from ppn.errors import Refusal

NAMESPACE = "ppn-iso"
MANIFEST = "ppn/manifest.json"
MOST_BYTES = 16 * 1024**2
# What the reader of ISO files ends with when it meets one that is damaged.
UNREADABLE = (PyCdlibException, struct.error, IndexError, ValueError)


def check(image: Path, signers: Path) -> str:
    """Judge an image's files by its signed manifest.

    Args:
        image: the ISO.
        signers: whose manifests count, in the form of ssh-keygen's ALLOWED SIGNERS.

    Returns:
        Who signed it.

    Raises:
        Refusal: no image of ours, not signed by any of them, or a file is not what was signed.
    """
    opened = PyCdlib()
    try:
        with image.open("rb") as file:
            opened.open_fp(file)
            manifest = _content(opened, MANIFEST)
            signature = _content(opened, f"{MANIFEST}.sig")
            signer = sshsig.judge(manifest.decode("ascii"), signature, signers, NAMESPACE)
            for path, entry in json.loads(manifest)["files"].items():
                _compare(opened, path, entry["sha256"])
            opened.close()
    except sshsig.SignatureWrong as error:
        raise _refusal(f"{image}: its manifest {error.message}", f"image_{error.code}") from error
    except (*UNREADABLE, OSError, KeyError, TypeError) as error:
        raise _refusal(f"{image} is no whole image: {error}", "image_damaged") from error
    return signer


def _compare(opened: PyCdlib, path: str, sha256: str) -> None:
    digest = hashlib.sha256()
    with opened.open_file_from_iso(rr_path=f"/{path}") as file:
        while chunk := file.read(1024**2):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise _refusal(f"{path} of the image is not what was signed", "image_damaged")


def _content(opened: PyCdlib, path: str) -> bytes:
    if opened.get_record(rr_path=f"/{path}").get_data_length() > MOST_BYTES:
        raise ValueError(f"{path} is too long")
    content = io.BytesIO()
    opened.get_file_from_iso_fp(content, rr_path=f"/{path}")
    return content.getvalue()


def _refusal(what: str, code: str) -> Refusal:
    return Refusal(
        what,
        code=code,
        constraint="signature of the image",
        hint="get the image again from who published it; `ppn iso verify` tells more",
    )
