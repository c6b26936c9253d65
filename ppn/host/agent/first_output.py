"""Waits for the first byte of started guests: the moment their own code runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 300.0
MOST_WAITING = 1024


@dataclass(frozen=True)
class Waiting:
    """A guest that has been started.

    Args:
        log: its serial log.
        size: how long that was before the start.
        tell: called once, when it has grown.
        until: when to stop waiting, by the monotonic clock.
    """

    log: Path
    size: int
    tell: Callable[[], None]
    until: float


class FirstOutput:
    """Looks at the serial logs of started guests; one thread, and only while one is awaited."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []

    def expect(self, log: Path, size: int, tell: Callable[[], None]) -> None:
        """Tell, once, when a serial log is longer than it was.

        Args:
            log: the file; it need not be there yet.
            size: its length in bytes before the guest started.
            tell: what to call then, on another thread; not at all if the guest stays silent.
        """
        one = Waiting(log, size, tell, time.monotonic() + PATIENCE_SECONDS)
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return
            self._waiting.append(one)
            if len(self._waiting) == 1:
                threading.Thread(target=self._watch, daemon=True, name="first-output").start()

    def _watch(self) -> None:
        while True:
            with self._lock:
                waiting = tuple(self._waiting)
            heard = [one for one in waiting if file_size(one.log) > one.size]
            for one in heard:
                one.tell()
            now = time.monotonic()
            with self._lock:
                self._waiting = [
                    one for one in self._waiting if one not in heard and one.until > now
                ]
                if not self._waiting:
                    return
            time.sleep(POLL_SECONDS)


def file_size(path: Path) -> int:
    """The length of a file in bytes; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
