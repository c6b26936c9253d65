"""The node's own settings, put there at onboarding."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ppn.errors import PpnError
from ppn.host.model import Settings

Model = TypeVar("Model", bound=BaseModel)


class SettingsDamaged(PpnError):
    """Settings that cannot be read: nothing is decided on guessed ones."""

    code = "settings_damaged"


def read_settings(path: Path) -> Settings:
    """The node's settings; the defaults when there is no file.

    Raises:
        SettingsDamaged: unreadable, no valid settings, or an unknown field.
    """
    return read_model(path, Settings) or Settings()


def read_model(path: Path, kind: type[Model]) -> Model | None:
    """A settings file as a value of its kind; None when there is no file.

    Raises:
        SettingsDamaged: unreadable, no valid settings, or an unknown field.
    """
    hint = "run the pool's deploy for this node again"
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsDamaged(f"{path}: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise SettingsDamaged(f"{path}: {where}: {first['msg']}", hint=hint) from error
