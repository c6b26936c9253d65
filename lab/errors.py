"""What can go wrong in the lab."""

from __future__ import annotations

from ppn.errors import PpnError


class LabError(PpnError):
    """The lab cannot do what it was asked, on this machine or in this state."""

    code = "lab_error"
