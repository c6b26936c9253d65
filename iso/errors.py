"""What can go wrong with the image."""

from __future__ import annotations

from ppn.errors import PpnError


class IsoError(PpnError):
    """The image cannot be made, signed or believed."""

    code = "iso_error"
