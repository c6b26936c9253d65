"""Where a test's log is, and waiting for what the log does by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ppn.audit.journal import NAME
from ppn.audit.log import Log, vkey_path
from ppn.audit.note import Verifier, parse_verifier
from ppn.audit.verify import Report, verify
from tests.unit.audit.samples import ORIGIN


class Place:
    """Where a test's log is."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "audit"
        self.key = root / "audit.key"
        self.journal = self.folder / NAME

    def open(self) -> Log:
        """The log, opened once more."""
        return Log.open(self.folder, ORIGIN, self.key)

    def trusted(self) -> Verifier:
        """Its public key."""
        return parse_verifier(vkey_path(self.key).read_text())

    def verified(self) -> Report:
        """The log verified; fails when anything is wrong with it."""
        found = verify(self.folder, self.trusted())
        assert found.findings == () and not found.torn_bytes
        return found


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)
