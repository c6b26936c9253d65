"""What can go wrong with the image."""

from __future__ import annotations

from pathlib import Path

from ppn.errors import PpnError


class IsoError(PpnError):
    """The image cannot be made, signed or believed."""

    code = "iso_error"


def need_files(*paths: Path, hint: str = "") -> None:
    """Refuse to start without files that were named.

    Args:
        paths: of the files.
        hint: what to give instead.

    Raises:
        IsoError: `not_found`.
    """
    for path in paths:
        if not path.is_file():
            raise IsoError(f"there is no file {path}", code="not_found", hint=hint)
