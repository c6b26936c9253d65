"""What a lab was made as: on record, so that each later command finds it so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.image import Image
from lab.medium import Medium
from lab.paths import LabPaths
from lab.topology import Kind, LabNode


@dataclass(frozen=True)
class Installed:
    """Which nodes of a lab are machines installed from a medium.

    Args:
        nodes: their names.
        medium: what they are installed from.
    """

    nodes: tuple[str, ...]
    medium: Medium


@dataclass(frozen=True)
class Settings:
    """What a lab was made as, and stays until it is destroyed.

    Args:
        kind: what its nodes are.
        image: the image its nodes' files lie over.
        installed: which of them are installed from a medium instead, if any.
    """

    kind: Kind
    image: Image
    installed: Installed | None = None

    def kind_of(self, node: LabNode) -> Kind:
        """What one node is."""
        if self.installed is not None and node.name in self.installed.nodes:
            return Kind.INSTALLED
        return self.kind

    def record(self) -> bytes:
        """These settings as the lab's record keeps them."""
        fields: dict[str, object] = {"kind": self.kind, "image": str(self.image.folder)}
        if self.installed is not None:
            medium = self.installed.medium
            fields["installed"] = self.installed.nodes
            fields["medium"] = [str(medium.image), str(medium.site_key)]
        return json.dumps(fields).encode()


def made_as(lab: LabPaths) -> Settings | None:
    """What this lab was made as; None when there is no such lab.

    Raises:
        LabError: the record is damaged.
    """
    try:
        fields = json.loads(lab.settings.read_bytes())
        folder = Path(fields["image"])
        image = Image(folder, folder.name.rpartition("-")[2])
        installed = None
        if "medium" in fields:
            iso, key = map(Path, fields["medium"])
            installed = Installed(tuple(fields["installed"]), Medium(iso, key))
        return Settings(Kind(fields["kind"]), image, installed)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{lab.settings} is damaged", hint=f"run `scripts/lab destroy --name {lab.name}`"
        ) from error
