"""What reconciliation keeps on disk: its key, its reports, the alerts and what sinks are owed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from ppn.durable import sync_folder, write_atomic
from ppn.errors import PpnError, Refusal
from ppn.fleet.reconciliation import report as reports
from ppn.fleet.reconciliation.notices import State
from ppn.fleet.reconciliation.policy import chained, outdated
from ppn.fleet.reconciliation.report import Report, ReportDamaged
from ppn.lock import FolderLocked, folder_lock
from ppn.log import get_logger
from ppn.pool import keys

NAME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
# Who holds the lock asks the controllers for 20 s at most, and then delivers for 30 s.
WATCH_SECONDS = 75.0
# Reports that one run removes; each makes one.
MOST_PRUNED = 31

log = get_logger("reconciliation")


@dataclass(frozen=True)
class Kept:
    """A report on disk: its name, when it was made, and its file."""

    name: str
    made: datetime
    path: Path


class Store:
    """The folder of one node's reconciliation.

    Args:
        folder: private to its user.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.key = folder / "report.key"
        self.state = folder / "alerts.json"

    def prepare(self) -> None:
        """Make the folder what it has to be; the key is born here, once.

        Raises:
            PpnError: it cannot be written.
        """
        with _as_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.reports.mkdir(mode=0o700, exist_ok=True)
            if self.key.exists():
                return  # the lock is a watch's too, which may wait for a controller
            # Two that come first at once must not both make a key.
            with folder_lock(self.folder):
                if not self.key.exists():
                    # Killed between the two files, the next one starts over.
                    keys.public_path(self.key).unlink(missing_ok=True)
                    keys.generate(self.key, keys.public_path(self.key))

    @contextmanager
    def running(self) -> Iterator[None]:
        """One run at a time.

        Raises:
            Refusal: `reconciliation_going`.
        """
        try:
            with folder_lock(self.reports, timeout=0):
                yield
        except FolderLocked as error:
            raise Refusal(
                "another reconciliation is going on",
                code="reconciliation_going",
                constraint="one run at a time",
                hint="wait until it has ended: ppn reconcile list",
            ) from error

    @contextmanager
    def alerting(self) -> Iterator[None]:
        """One who changes the alerts at a time.

        Raises:
            FolderLocked: another one was at it for longer than a watch may take.
        """
        with folder_lock(self.folder, timeout=WATCH_SECONDS):
            yield

    def private(self) -> Ed25519PrivateKey:
        """The key that signs."""
        return keys.load_private(self.key)

    def public(self) -> Ed25519PublicKey:
        """What reports are verified with."""
        return keys.load_public(keys.public_path(self.key))

    def kept(self) -> tuple[Kept, ...]:
        """Every report, in the order in which they were written; a clock may have been wrong.

        Raises:
            PpnError: the folder cannot be read: that is not to have none.
        """
        with _as_errors(self.reports):
            paths = list(self.reports.iterdir()) if self.reports.exists() else []
        found = {one.name: one for one in map(self._kept, paths) if one}
        links = {}
        for name, one in found.items():
            content = _bytes(one.path)
            links[name] = (reports.digest(content), reports.previous_of(content))
        return tuple(found[name] for name in chained(links))

    def find(self, name: str | None) -> Kept:
        """A report by its name; the newest when None.

        Raises:
            Refusal: `report_unknown`.
        """
        found = [one for one in self.kept() if name in (None, one.name)]
        if not found:
            raise Refusal(
                f"there is no report {name}" if name else "there is no report yet",
                code="report_unknown",
                constraint="kept report",
                hint="ppn reconcile list" if name else "ppn reconcile run",
            )
        return found[-1]

    def keep(self, report: Report, now: datetime) -> Kept:
        """Write a report down; when this returns it is there for good.

        Args:
            report: with `previous` as `last_digest` gave it.
            now: when it was made.
        """
        name = now.astimezone(UTC).strftime(NAME_FORMAT)
        path = self.reports / f"{name}.json"
        with _as_errors(path):
            write_atomic(path, reports.encode(report, self.private()), mode=0o600)
        return Kept(name, now, path)

    def last_digest(self) -> str:
        """SHA-256 of the newest report's file; empty when there is none."""
        found = self.kept()
        return reports.digest(_bytes(found[-1].path)) if found else ""

    def prune(self, now: datetime, keep_days: int) -> int:
        """Remove reports that were kept for long enough; returns how many.

        A few at a time: a clock that is years ahead for one run must not end them all.
        """
        kept = self.kept()
        count = min(outdated([one.made for one in kept], now, keep_days), MOST_PRUNED)
        gone = [one.path for one in kept[:count]]
        with _as_errors(self.reports):
            for path in gone:
                path.unlink()
            sync_folder(self.reports)
        return len(gone)

    def verify(self, key: Ed25519PublicKey | None = None) -> tuple[Kept, ...]:
        """Verify every report, and that none between the first and the last is missing.

        Args:
            key: of the node that made them; this folder's when None.

        Raises:
            ReportDamaged: names the first that cannot be trusted.
        """
        key = key or self.public()
        found, before = self.kept(), None
        for one in found:
            content = _bytes(one.path)
            report = reports.decode(content, key, one.path.name)
            if before is not None and report.previous != before:
                raise ReportDamaged(
                    f"the report before {one.path.name} is not the one it was written after",
                    code="report_missing",
                    hint="one between them was removed or replaced: see a copy of the folder",
                )
            before = reports.digest(content)
        return found

    def read_state(self) -> State:
        """The alerts that stand, and what sinks are owed.

        Raises:
            PpnError: unreadable.
        """
        with _as_errors(self.state):
            try:
                return State.model_validate_json(self.state.read_bytes())
            except FileNotFoundError:
                return State()
            except ValidationError:
                # Silence would be worse than to tell every alert that stands once more.
                aside = self.state.with_suffix(".damaged")
                self.state.replace(aside)
                log.error("the state of the alerts is damaged and begun anew", kept=str(aside))
                return State()

    def write_state(self, state: State) -> None:
        """Remember the alerts and what sinks are owed, in one step."""
        with _as_errors(self.state):
            write_atomic(self.state, state.model_dump_json().encode(), mode=0o600)

    def _kept(self, path: Path) -> Kept | None:
        try:
            made = datetime.strptime(path.name, f"{NAME_FORMAT}.json").replace(tzinfo=UTC)
        except ValueError:
            return None  # not a name of ours
        return Kept(path.stem, made, path)


def read_report(path: Path, key: Ed25519PublicKey) -> Report:
    """A report, verified.

    Args:
        path: its file.
        key: of the node that made it.

    Raises:
        ReportDamaged: it cannot be read or trusted.
    """
    return reports.decode(_bytes(path), key, path.name)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(reports.MAX_BYTES)
    except OSError as error:
        raise ReportDamaged(
            f"cannot read {path}: {error.strerror}", hint="run as root, or as the service's user"
        ) from error


@contextmanager
def _as_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PpnError(
            f"cannot read or write {path}: {error.strerror}",
            code="file_failed",
            hint="check room and permissions; run as root, or as the service's user",
        ) from error
