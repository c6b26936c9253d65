"""Settings files: a model of what the inventory told a program, and nothing guessed."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ppn.errors import PpnError

HINT = "run the pool's deploy for this node again"

Model = TypeVar("Model", bound=BaseModel)


class SettingsDamaged(PpnError):
    """Settings that cannot be read; nothing is guessed in their place."""

    code = "settings_damaged"


def read_model(path: Path, kind: type[Model]) -> Model | None:
    """A settings file as a value of its kind; None when there is no file.

    Raises:
        SettingsDamaged: unreadable, no valid settings, or an unknown field.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsDamaged(f"cannot read {path}: {error.strerror}", hint=HINT) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise SettingsDamaged(f"{path}: {where}: {first['msg']}", hint=HINT) from error


def read_own(path: Path, kind: type[Model]) -> Model:
    """The settings of a program that does nothing without them.

    Raises:
        SettingsDamaged: missing, or see `read_model`.
    """
    found = read_model(path, kind)
    if found is None:
        raise SettingsDamaged(
            f"cannot read {path}: No such file or directory",
            hint="is this the right node? the pool's deploy writes it",
        )
    return found
