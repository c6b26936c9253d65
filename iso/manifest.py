"""The signed list of everything on the medium, and how it is written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iso.errors import IsoError

FORMAT = "ppn-iso-manifest/1"
NAMESPACE = "ppn-iso"
PATH = "ppn/manifest.json"
SIGNATURE_PATH = "ppn/manifest.json.sig"
# A pool's own settings: signed for themselves, so that one image serves every pool.
SITE_PATHS = ("ppn/site.json", "ppn/site.json.sig")
UNLISTED = frozenset((PATH, SIGNATURE_PATH, *SITE_PATHS))


@dataclass(frozen=True)
class Entry:
    """One file.

    Args:
        size: in bytes.
        sha256: of its content, in hex.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an image is made of.

    Args:
        version: of ppn.
        commit: of the source that went in.
        source_date_epoch: the time of everything in it, in seconds since 1970.
        lock_sha256: of the lock of packages.
        root_hash: of the verified root.
        test_keys: whether keys were used that nobody keeps secret.
        uki: the boot file before it is signed.
        files: every file of the medium by path.
    """

    version: str
    commit: str
    source_date_epoch: int
    lock_sha256: str
    root_hash: str
    test_keys: bool
    uki: Entry
    files: Mapping[str, Entry]


def entry_of(path: Path) -> Entry:
    """What the manifest says of a file."""
    with path.open("rb") as file:
        return Entry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def render(manifest: Manifest) -> bytes:
    """The manifest as it is signed: JSON, sorted, with a newline at its end."""
    return document({"format": FORMAT, **asdict(manifest)})


def document(value: Mapping[str, Any]) -> bytes:
    """A JSON document of the medium: the same bytes for the same value, readable in a diff."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def parse(content: bytes) -> Manifest:
    """Read a manifest.

    Args:
        content: its bytes; only of a signed one should anything be believed.

    Raises:
        IsoError: `manifest_malformed`.
    """
    try:
        fields = json.loads(content)
        if fields.pop("format") != FORMAT:
            raise ValueError("it has another format")
        fields["uki"] = _entry(fields["uki"])
        fields["files"] = {str(path): _entry(value) for path, value in fields["files"].items()}
        manifest = Manifest(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IsoError(
            f"the manifest cannot be read: {error}",
            code="manifest_malformed",
            hint="it may be of another version of ppn: verify with that one",
        ) from error
    return manifest


def _entry(value: Any) -> Entry:
    return Entry(size=int(value["size"]), sha256=str(value["sha256"]))
