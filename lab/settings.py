"""What a lab was made as: on record, so that each later command finds it so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.image import Image
from lab.medium import Medium
from lab.paths import LabPaths
from lab.topology import NODES, Kind, LabNode


@dataclass(frozen=True)
class Settings:
    """What a lab was made as, and stays until it is destroyed.

    Args:
        kinds: what each of its nodes is, by name.
        image: the image its nodes' files lie over.
        medium: what those are installed from that are installed.
    """

    kinds: Mapping[str, Kind]
    image: Image
    medium: Medium | None = None

    def kind_of(self, node: LabNode) -> Kind:
        """What one node is."""
        return self.kinds[node.name]

    def record(self) -> bytes:
        """These settings as the lab's record keeps them."""
        fields: dict[str, object] = {"kinds": dict(self.kinds), "image": str(self.image.folder)}
        if self.medium is not None:
            fields["medium"] = [str(self.medium.image), str(self.medium.site_key)]
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
        medium = None
        if "medium" in fields:
            iso, key = map(Path, fields["medium"])
            medium = Medium(iso, key)
        kinds = {node.name: Kind(fields["kinds"][node.name]) for node in NODES}
        return Settings(kinds, image, medium)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{lab.settings} is damaged", hint=f"run `scripts/lab destroy --name {lab.name}`"
        ) from error
