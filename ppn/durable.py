"""Files that survive a kill at any point: the old content or the new one, never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content so that a crash leaves the old file or the new one.

    Args:
        path: the file; its folder must exist.
        content: the whole new content.
        mode: permission bits, in force from the file's first moment.

    Raises:
        OSError: the folder is missing, not writable or full; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_in_place(draft: Path, path: Path) -> None:
    """Give a finished file its name, so that a power cut leaves no part of it under that name.

    Args:
        draft: the file, on the same file system.
        path: its name; a file of that name is replaced.

    Raises:
        OSError: it cannot be read or moved.
    """
    with draft.open("rb") as content:
        os.fsync(content.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
