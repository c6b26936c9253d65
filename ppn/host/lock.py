"""One lock per node: whoever changes anything holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppn.errors import PpnError
from ppn.lock import take

TIMEOUT_SECONDS = 300.0


class NodeBusy(PpnError):
    """Another process has been changing the node for too long."""

    code = "node_busy"


@contextmanager
def node_lock(path: Path, *, timeout: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Hold the node's lock; the kernel gives it back when the process ends, however it ends.

    Args:
        path: the lock file; made when absent.
        timeout: seconds to wait for it.

    Raises:
        NodeBusy: another process held it all that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not take(descriptor, timeout=timeout):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise NodeBusy(
                f"{path} is held by process {holder or 'unknown'} for over {timeout:g} s",
                hint="wait for it to end, or look at what it does",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
