"""What software an image holds: a bill of materials in SPDX 2.3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from iso.source import Source


@dataclass(frozen=True)
class Component:
    """One package of the image.

    Args:
        kind: `deb` or `pypi`, as package URLs name it.
        name: of the package.
        version: of the package.
        sha256: of the file it came in, in hex.
        file: that file's name.
    """

    kind: str
    name: str
    version: str
    sha256: str
    file: str

    @property
    def purl(self) -> str:
        """Its package URL."""
        place = "deb/debian" if self.kind == "deb" else self.kind
        end = "?arch=amd64&distro=trixie" if self.kind == "deb" else ""
        return f"pkg:{place}/{quote(self.name)}@{quote(self.version)}{end}"

    @property
    def id(self) -> str:
        """Its name inside the document."""
        return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{self.kind}-{self.name}")


def document(source: Source, lock_sha256: str, components: Sequence[Component]) -> dict[str, Any]:
    """The bill of materials; its time is that of the source.

    Args:
        source: what the image is made of.
        lock_sha256: of the lock of packages, in hex.
        components: every package, in any order.
    """
    name = f"ppn-{source.version}"
    whole = {
        "SPDXID": "SPDXRef-image",
        "name": "ppn",
        "versionInfo": source.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "sourceInfo": f"commit {source.commit}",
    }
    ordered = sorted(components, key=lambda component: component.id)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{lock_sha256}-{source.commit}",
        "creationInfo": {
            "created": datetime.fromtimestamp(source.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: ppn-{source.version}"],
        },
        "packages": [whole, *(_package(component) for component in ordered)],
        "relationships": [
            _related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"),
            *(_related("SPDXRef-image", "CONTAINS", component.id) for component in ordered),
        ],
    }


def _package(component: Component) -> dict[str, Any]:
    return {
        "SPDXID": component.id,
        "name": component.name,
        "versionInfo": component.version,
        "packageFileName": component.file,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": component.sha256}],
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.purl,
            }
        ],
    }


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}
