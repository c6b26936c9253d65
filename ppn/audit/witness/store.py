"""What a witness remembers: of each log its key, the last checkpoint it signed, and every fork."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ppn.durable import write_atomic
from ppn.errors import PpnError

# Kept of one log; the first ones are the telling ones.
MOST_FORKS = 64


class MemoryDamaged(PpnError):
    """What a witness remembers of a log cannot be read, so that it signs nothing of that log."""

    code = "witness_damaged"


class Kept(BaseModel):
    """What is remembered of a log.

    Args:
        origin: its name.
        vkey: its key.
        checkpoint: the last one that was signed, a note; empty before the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    vkey: str
    checkpoint: str = ""


@dataclass(frozen=True)
class Store:
    """A witness's memory, in a folder; one process has it.

    Args:
        folder: exists.
    """

    folder: Path

    def get(self, origin: str) -> Kept | None:
        """What is remembered of a log, None when it was never seen.

        Raises:
            MemoryDamaged: it cannot be read.
        """
        path = self._path(origin)
        try:
            found = Kept.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise MemoryDamaged(
                f"{path} cannot be read",
                hint="a witness that forgot must not go on: restore the file, or give the witness"
                " a new name and key",
            ) from error
        return found

    def put(self, kept: Kept) -> None:
        """Remember it, durably.

        Raises:
            MemoryDamaged: it cannot be written.
        """
        self._write(self._path(kept.origin), kept.model_dump_json(indent=2).encode())

    def keep_fork(self, origin: str, signed: str, offered: bytes) -> None:
        """Keep two checkpoints that do not go together, both signed by the log.

        Args:
            origin: the log.
            signed: the one this witness signed.
            offered: the one it refused.
        """
        path = self._path(origin)
        digest = hashlib.sha256(signed.encode() + offered).hexdigest()[:16]
        if self.forks(origin) < MOST_FORKS:
            self._write(path.with_name(f"{path.stem}.{digest}.a.note"), signed.encode())
            self._write(path.with_name(f"{path.stem}.{digest}.b.note"), offered)

    def forks(self, origin: str) -> int:
        """How many checkpoints were refused for not going together with what was signed."""
        return len(list(self.folder.glob(f"{self._path(origin).stem}.*.b.note")))

    def _path(self, origin: str) -> Path:
        return self.folder / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.json"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomic(path, content, mode=0o600)
        except OSError as error:
            raise MemoryDamaged(
                f"cannot write {path}: {error.strerror}", hint="check the room on its disk"
            ) from error
