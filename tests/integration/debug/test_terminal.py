"""What is different where a person watches: colours, unless they are not wanted."""

from __future__ import annotations

import os
import pty
import subprocess

import pytest

from tests.integration.host.node import PPN


def watched(*words: str, **environment: str) -> bytes:
    """What `ppn` writes to a terminal."""
    ours, theirs = pty.openpty()
    given = {**os.environ, "TERM": "xterm", **environment}
    with subprocess.Popen([PPN, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=given):
        os.close(theirs)
        found = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                # The other end is closed.
                break
            if not part:
                break
            found += part
    os.close(ours)
    return found


@pytest.mark.parametrize("wanted", [True, False])
def test_colours_are_for_who_wants_them(wanted: bool, tmp_path: object) -> None:
    """CLI-03: NO_COLOR is obeyed on a terminal; moving the cursor for progress is no colour."""
    environment = {"PPN_ROOT": str(tmp_path)} | ({} if wanted else {"NO_COLOR": "1"})
    found = watched("debug", "node", **environment)
    assert b"services and clock" in found
    assert (b"\x1b[1m" in found) == wanted and (b"\x1b[32m" in found) == wanted
