"""Locks between processes that never block this one."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppn.errors import PpnError

DEADLINE_SECONDS = 30.0
RETRY_SECONDS = (0.001, 0.01)


class FolderLocked(PpnError):
    """Another process has held a folder's lock for too long."""

    code = "folder_locked"


def take(descriptor: int, *, timeout: float) -> bool:
    """Lock an open file or folder for this process alone; closing it gives the lock back.

    A lock that is waited for in the kernel stops the whole process. In a pyinfra run the holder may
    be another host's greenlet of the same process, which the garbage collector can suspend at any
    point; then nobody would ever go on. So this tries again and again, at random moments, or a
    writer without a pause would keep it out for ever.

    Args:
        descriptor: of the open file or folder.
        timeout: seconds to go on trying.

    Returns:
        Whether the lock is held now.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(random.uniform(*RETRY_SECONDS))
        else:
            return True


@contextmanager
def folder_lock(folder: Path, *, timeout: float = DEADLINE_SECONDS) -> Iterator[None]:
    """Hold the lock of a folder: for files that are replaced, so that they cannot carry one.

    Args:
        folder: it must exist; no file is left in it.
        timeout: seconds to wait for the lock.

    Raises:
        FolderLocked: another process held it all that time.
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not take(descriptor, timeout=timeout):
            raise FolderLocked(
                f"{folder}: another process held its lock for {timeout:g} s",
                hint=f"see who with `fuser -v {folder}`, then try again",
            )
        yield
    finally:
        os.close(descriptor)
