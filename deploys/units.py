"""systemd units as text, read from the folder beside this file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from operations.files import File

FOLDER = Path(__file__).parent / "units"


def unit_text(name: str) -> str:
    """The text of a unit, or of a piece of one.

    Args:
        name: a file in `deploys/units`.
    """
    return (FOLDER / name).read_text(encoding="utf-8")


def unit_file(name: str) -> dict[str, File]:
    """A unit of this project, as the file a node should have.

    Args:
        name: the unit with its suffix, a file in `deploys/units`.
    """
    return {f"/etc/systemd/system/{name}": File(unit_text(name))}


def service_files(path: str, settings: BaseModel, unit: str, interface: str) -> dict[str, File]:
    """The settings and the unit of a service that listens in the mesh.

    Args:
        path: of its settings.
        settings: what it is told.
        unit: with its suffix, a file in `deploys/units`.
        interface: of the mesh, whose unit it is bound to.
    """
    return {
        path: File(settings.model_dump_json(indent=2) + "\n"),
        **{
            at: File(file.content.replace("INTERFACE", interface))
            for at, file in unit_file(unit).items()
        },
    }
