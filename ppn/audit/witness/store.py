"""What a witness remembers: of each log its key, the last checkpoint it signed, and every fork.

Beside that stands which logs it knows at all: one whose memory is lost must not pass for a new one,
or an older history of it would be signed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ppn.durable import sync_folder, write_atomic
from ppn.errors import PpnError

# Kept of one log; the first ones are the telling ones.
MOST_FORKS = 64
LOGS, KNOWN = "logs", "known"
NAMES = TypeAdapter(tuple[str, ...])


class MemoryDamaged(PpnError):
    """What a witness remembers of a log cannot be read, so that it signs nothing of that log."""

    code = "witness_damaged"


class MemoryLost(MemoryDamaged):
    """What a witness remembered of a log is gone; what came before might be signed anew."""

    code = "witness_forgot"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            hint="restore it; or stop ppn-witness and run `ppn audit forget`, see docs/audit.md",
        )


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
        folder: exists; see `begin`.
    """

    folder: Path

    def begin(self, *, new: bool) -> None:
        """Make what a witness's memory needs; what is there already stays.

        Args:
            new: it has no key yet, and so has signed nothing.

        Raises:
            MemoryLost: it has signed, and nothing says any more what.
            MemoryDamaged: it cannot be made or read.
        """
        logs = self.folder / LOGS
        try:
            logs.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise _unwritten(logs, error) from error
        there = self._found()
        if not (self.folder / KNOWN).exists() and (new or there):
            self._remember(there)
        self.known()

    def known(self) -> tuple[str, ...]:
        """The names of the logs that were ever signed.

        Raises:
            MemoryLost: nothing says so any more.
            MemoryDamaged: it cannot be read.
        """
        path = self.folder / KNOWN
        try:
            return NAMES.validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise MemoryLost(f"{path}, the list of logs that were signed, is gone") from error
        except (OSError, ValidationError) as error:
            raise _unread(path) from error

    def get(self, origin: str) -> Kept | None:
        """What is remembered of a log, None when it was never seen.

        Raises:
            MemoryLost: it was seen, and what was remembered is gone.
            MemoryDamaged: it cannot be read.
        """
        path = self._path(origin)
        try:
            found = Kept.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            if origin in self.known():
                raise MemoryLost(f"{path}, what was signed of {origin}, is gone") from error
            return None
        except (OSError, ValidationError) as error:
            raise _unread(path) from error
        return found

    def put(self, kept: Kept) -> None:
        """Remember it, durably; nothing may be signed before this returns.

        Raises:
            MemoryLost: see `known`.
            MemoryDamaged: it cannot be written.
        """
        known = self.known()
        self._write(self._path(kept.origin), kept.model_dump_json(indent=2).encode())
        if kept.origin not in known:
            self._remember((*known, kept.origin))

    def forget(self, origin: str, aside: str) -> bool:
        """Let a log be new to the witness; what was remembered of it is kept aside.

        Args:
            origin: the log.
            aside: stands at the end of the name of what is kept.

        Returns:
            Whether the log was known.

        Raises:
            MemoryDamaged: it cannot be written.
        """
        path = self._path(origin)
        moved = path.exists()
        if moved:
            try:
                path.rename(path.with_name(f"{path.name}.{aside}"))
                sync_folder(path.parent)
            except OSError as error:
                raise _unwritten(path, error) from error
        try:
            known = self.known()
        except MemoryDamaged:
            known = self._found()
        self._remember(tuple(one for one in known if one != origin))
        return moved or origin in known

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
        path = self._path(origin)
        return len(list(path.parent.glob(f"{path.stem}.*.b.note")))

    def _path(self, origin: str) -> Path:
        return self.folder / LOGS / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.json"

    def _found(self) -> tuple[str, ...]:
        """The names of the logs of which something is remembered and can be read."""
        found = []
        for path in sorted((self.folder / LOGS).glob("*.json")):
            try:
                found.append(Kept.model_validate_json(path.read_bytes()).origin)
            except (OSError, ValidationError) as error:
                raise _unread(path) from error
        return tuple(found)

    def _remember(self, known: tuple[str, ...]) -> None:
        self._write(self.folder / KNOWN, NAMES.dump_json(known))

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomic(path, content, mode=0o600)
        except OSError as error:
            raise _unwritten(path, error) from error


def _unread(path: Path) -> MemoryDamaged:
    return MemoryDamaged(
        f"{path} cannot be read",
        hint="a witness that forgot must not go on: restore the file, or give the witness a new"
        " name and key",
    )


def _unwritten(path: Path, error: OSError) -> MemoryDamaged:
    return MemoryDamaged(
        f"cannot write {path}: {error.strerror}", hint="check the room on its disk"
    )
