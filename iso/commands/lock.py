"""`ppn iso lock`: refresh the lock from the archive, and show what changed."""

from __future__ import annotations

from ppn.cli.output import AsJson
from ppn.errors import PpnError


def lock(as_json: AsJson = False) -> None:
    """Refresh the lock of packages from the archive, and show what changed.

    Example: ppn iso lock
    """
    raise PpnError("there is no lock yet")
