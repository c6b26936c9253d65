"""Image files that are judged before they are written to a stick."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.errors import Refusal
from ppn.installer.published import check
from ppn.iso9660 import volume


@pytest.mark.exhaustive
def test_a_damaged_image_is_refused_as_one(tmp_path: Path) -> None:
    """Whichever of the bytes that describe its files is not what it was."""
    image = tmp_path / "image.iso"
    content = volume("PPN", {"manifest.json": b"{}"})
    for position in (at for at, byte in enumerate(content) if byte and at % 3 == 0):
        image.write_bytes(content[:position] + b"\1" + content[position + 1 :])
        with pytest.raises(Refusal) as refused:
            check(image, tmp_path / "allowed_signers")
        assert refused.value.code == "image_damaged"
