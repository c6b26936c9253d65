"""Anyone can build a published image again, and is told when it is not the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iso.build import Inputs
from iso.errors import IsoError
from iso.manifest import entry_of
from iso.rebuild import rebuild
from iso.source import CHECKOUT
from iso.times import Times
from tests.integration.iso_image.conftest import SOURCE, Made


def test_building_again_gives_the_published_image(made: Made, tmp_path: Path) -> None:
    """ISO-02: keys, settings and signatures are taken from the image, all else is made anew."""
    image = Path(shutil.copy(made.image, tmp_path))

    def prepare(parts: Path, keys: Path | None, site: Path | None) -> Inputs:
        return replace(made.inputs, output=parts, keys=keys, site=site)

    assert rebuild(image, prepare, Times()) == entry_of(made.image).sha256
    assert [path.name for path in tmp_path.iterdir()] == [image.name]


def test_another_root_is_told_and_kept_to_be_compared(made: Made, tmp_path: Path) -> None:
    image = Path(shutil.copy(made.image, tmp_path))
    other = tmp_path / "packed"
    # Beyond its end a squashfs has padding that nothing reads: another file, and as good.
    other.write_bytes(made.inputs.packed.read_bytes() + bytes(4096))

    def prepare(parts: Path, keys: Path | None, site: Path | None) -> Inputs:
        return replace(made.inputs, output=parts, keys=keys, site=site, packed=other)

    with pytest.raises(IsoError, match=r"ppn/root\.squashfs") as refused:
        rebuild(image, prepare, Times())
    assert refused.value.code == "rebuild_differs"
    assert "diffoscope" in refused.value.hint
    assert (tmp_path / f"{image.name}.rebuilt").exists()


def test_another_source_is_refused_before_anything_is_built(made: Made, tmp_path: Path) -> None:
    image = Path(shutil.copy(made.image, tmp_path))

    def prepare(parts: Path, keys: Path | None, site: Path | None) -> Inputs:
        return replace(made.inputs, output=parts, source=replace(SOURCE, commit="decade"))

    with pytest.raises(IsoError) as refused:
        rebuild(image, prepare, Times())
    assert refused.value.code == "checkout_differs"


def test_the_command_tells_programs_and_people(made: Made, tmp_path: Path) -> None:
    """ISO-01: exit code 0 for an image that is believed, 1 with a code for one that is not."""
    keys = ["--keys", str(made.keys.public)]

    def verify(image: Path, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "iso", "verify", str(image), *keys, *words]
        return subprocess.run(
            argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
        )

    good = verify(made.image)
    assert good.returncode == 0, good.stderr
    assert "ppn-test signed" in good.stdout and "tests" in good.stdout
    cut = tmp_path / "cut"
    cut.write_bytes(made.image.read_bytes()[:-1])
    bad = verify(cut, "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stderr.splitlines()[-1])["error"]["code"] == "iso_truncated"
