"""Extend or install a ledger in a child that is killed before its n-th line, for every n.

Run as: python stepper.py extend|install LEDGER KEY; prints `old`, `new` or `broken` for each kill.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ppn.pool import keys, store
from ppn.pool.ledger import Grant, append, read
from tests.unit.pool.samples import NOW

# Where files are touched; the lines that only compute leave the file alone.
TRACED = ("store.py", "durable.py", "pathlib.py", "_local.py", "contextlib.py")


def main(action: str, path: Path, key: Path) -> None:
    """Kill at every step, then let one child finish."""
    private = keys.load_private(key)
    old = path.read_bytes()
    grant = Grant(action, 2, 0)
    new = append(old, private, (grant,), NOW)
    for step in itertools.count(1):
        path.write_bytes(old)
        child = os.fork()
        if child == 0:
            sys.settrace(killer(step))
            if action == "extend":
                store.extend(path, private, {grant.vm: grant}, NOW)
            else:
                store.install(path, new, private.public_key())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        found = path.read_bytes()
        print("old" if found == old else "new" if found == new else "broken")
    read(path.read_bytes(), private.public_key())


def killer(step: int) -> Any:
    """A trace function that ends its process, without a chance to clean up, before a line."""
    lines = itertools.count(1)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if os.path.basename(frame.f_code.co_filename) not in TRACED:
            return None
        if event == "line" and next(lines) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
