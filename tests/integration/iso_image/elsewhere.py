"""Builds the small image as another machine would: run by the reproducibility test.

`python -m tests.integration.iso_image.elsewhere INPUTS.json OUTPUT` prints the SHA-256.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from iso import squash
from iso.build import Inputs, build_iso
from iso.lock import LOCK_FILE
from iso.source import Source
from iso.times import Times


def main(given: Path, output: Path) -> None:
    """Build what the file describes, and print the SHA-256 of the ISO."""
    fields = json.loads(given.read_text())
    source = Source(**fields["source"])
    root, tools, keys = (Path(fields[name]) for name in ("root", "tools", "keys"))
    packed = output / "packed"
    output.mkdir(parents=True)
    squash.pack(root, packed, tools=tools, epoch=source.epoch)
    inputs = Inputs(
        root=root,
        packed=packed,
        tools=tools,
        lock=LOCK_FILE,
        source=source,
        components=(),
        output=output / "unsigned",
        keys=keys,
    )
    _, _, digest = build_iso(inputs, output, Times())
    print(digest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
