"""Facts about the guest images on a node."""

from __future__ import annotations

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

FOLDER = "/var/lib/ppn/images"


class ImageDigests(FactBase[dict[str, str] | None]):
    """The guest images of a node: name to the SHA-256 of the manifest, which names every file.

    Example:
        `host.get_fact(ImageDigests)`
    """

    @override
    @staticmethod
    def default() -> dict[str, str] | None:
        return None

    @override
    def command(self) -> str:
        # Without images the pattern stays as it is, and there is nothing to sum.
        return (
            f"set -e; echo start; for manifest in {FOLDER}/*/manifest.json; do"
            ' if [ -e "$manifest" ]; then sha256sum "$manifest"; fi; done'
        )

    @override
    def process(self, output: list[str]) -> dict[str, str] | None:
        digests = {}
        for line in output[1:]:
            digest, _, path = line.partition("  ")
            if not path.startswith(FOLDER):
                raise FactProcessError(f"unexpected line from sha256sum: {line!r}")
            digests[path.split("/")[-2]] = digest
        return digests
