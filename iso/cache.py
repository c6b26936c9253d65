"""Files by their hash: fetched once, never under their name before every byte is right."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppn.durable import put_in_place
from ppn.errors import PpnError

NAMED = 5


class CacheUnusable(PpnError):
    """The cache lacks something, or was given something wrong."""

    code = "cache_unusable"


@dataclass(frozen=True)
class File:
    """A file that somebody names by its content.

    Args:
        title: what people call it, for example `bash 5.2.37-2 (pool/main/b/bash/...)`.
        sha256: of its content, in hex.
        size: in bytes; None where only the hash is known.
        addresses: where it can be had, in this order.
    """

    title: str
    sha256: str
    size: int | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cache:
    """Files under the names of their hashes, in a folder that can be carried to another machine.

    Args:
        folder: what holds it; other things may be there too.
    """

    folder: Path

    def path(self, sha256: str) -> Path:
        """Where a file is, or would be."""
        return self.folder / "files" / sha256[:2] / sha256

    def has(self, file: File) -> bool:
        """Whether a file is there and every byte of it is right."""
        path = self.path(file.sha256)
        return path.is_file() and hash_of(path) == file.sha256

    def absent(self, files: Iterable[File]) -> list[File]:
        """Which files are not there, or are damaged."""
        return [file for file in files if not self.has(file)]

    def draft(self, file: File) -> Path:
        """A new name beside a file's place, for bytes that have not been judged."""
        path = self.path(file.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")

    def keep(self, draft: Path, file: File) -> None:
        """Judge a draft: it becomes the file, or it is removed.

        Args:
            draft: what `draft` named, filled.
            file: what it should be.

        Raises:
            CacheUnusable: it is something else.
            OSError: it cannot be read or moved.
        """
        size, sha256 = draft.stat().st_size, hash_of(draft)
        if sha256 != file.sha256:
            draft.unlink()
            raise CacheUnusable(
                f"what came for {file.title} is not what the lock names: {size} bytes with "
                f"SHA-256 {sha256[:16]}…, wanted {_wanted(file)}; it was not kept",
                code="bytes_differ",
                hint="try another mirror; where the archive has changed, refresh the lock",
            )
        put_in_place(draft, self.path(file.sha256))

    def need(self, files: Sequence[File]) -> None:
        """Refuse to go on when a file is not there.

        Args:
            files: what is needed.

        Raises:
            CacheUnusable: some are missing; the first ones are named.
        """
        absent = self.absent(files)
        if absent:
            raise CacheUnusable(
                f"{self.folder} lacks {len(absent)} of {len(files)} files: {_named(absent)}",
                code="not_in_cache",
                hint="fetch them with a network (`scripts/iso cache fetch`), or carry them here "
                "from a machine that has them (`scripts/iso cache import FOLDER`)",
            )

    def copy_to(self, other: Cache, files: Sequence[File], told: Callable[[str], None]) -> int:
        """Carry files to another cache; each is judged where it arrives.

        Args:
            other: the other one; what it has stays.
            files: which.
            told: called with how far it is.

        Returns:
            How many it did not have.

        Raises:
            CacheUnusable: neither has some of them; all that could be carried was.
            OSError: the other one cannot be written.
        """
        wanted = other.absent(files)
        missing = self.absent(wanted)
        carried = [file for file in wanted if file not in missing]
        for number, file in enumerate(carried, 1):
            told(f"{number} of {len(carried)}")
            other.take(self.path(file.sha256), file)
        self.need(missing)
        return len(carried)

    def take(self, source: Path, file: File) -> None:
        """Copy a file in, and judge it here.

        Args:
            source: where it is.
            file: what it should be.

        Raises:
            CacheUnusable: it is something else.
            OSError: it cannot be read or written; nothing of it stays.
        """
        draft = self.draft(file)
        try:
            shutil.copyfile(source, draft)
            self.keep(draft, file)
        finally:
            draft.unlink(missing_ok=True)


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wanted(file: File) -> str:
    size = f"{file.size} with " if file.size is not None else ""
    return f"{size}{file.sha256[:16]}…"


def _named(files: Sequence[File]) -> str:
    names = ", ".join(file.title for file in files[:NAMED])
    return names + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
