"""The node's own settings, put there at onboarding."""

from __future__ import annotations

from pathlib import Path

from ppn.host.model import Settings
from ppn.settings import read_model


def read_settings(path: Path) -> Settings:
    """The node's settings; the defaults when there is no file.

    Raises:
        SettingsDamaged: unreadable, no valid settings, or an unknown field.
    """
    return read_model(path, Settings) or Settings()
