"""Whoever builds, wherever and whenever: the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from iso.build import build_iso
from iso.manifest import entry_of
from iso.source import CHECKOUT
from iso.times import Times
from iso.unsigned import Unsigned
from tests.integration.iso_image.conftest import SOURCE, Made

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
# Another file system, whose folders list their files in another order.
MEMORY = Path("/dev/shm")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    with TemporaryDirectory(prefix="ppn elsewhere ", dir=MEMORY) as name:
        yield Path(name)


def shuffled(source: Path, target: Path) -> None:
    """Copy a tree, its files in an order of chance, so that nothing lies as it did."""
    entries = sorted(source.rglob("*"))
    random.Random(4).shuffle(entries)
    for folder in sorted(path for path in entries if path.is_dir() and not path.is_symlink()):
        place = target / folder.relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(folder.stat().st_mode & 0o7777)
    known: dict[int, Path] = {}
    for path in entries:
        place = target / path.relative_to(source)
        if path.is_symlink():
            place.symlink_to(os.readlink(path))
        elif path.is_file():
            number = path.stat().st_ino
            if number in known:
                place.hardlink_to(known[number])
            else:
                shutil.copyfile(path, place)
                place.chmod(path.stat().st_mode & 0o7777)
                known[number] = place


def built_elsewhere(made: Made, folder: Path) -> tuple[str, Unsigned]:
    """Build from a shuffled copy with all that a machine can lend to a build being another."""
    shuffled(made.root, folder / "root")
    fields = {
        "source": asdict(SOURCE),
        "root": str(folder / "root"),
        "tools": str(made.tools),
        "keys": str(made.keys.public),
    }
    (folder / "inputs.json").write_text(json.dumps(fields))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONHASHSEED": "4711",
        "HOME": str(folder),
        "TZ": "Pacific/Chatham",
        "LC_ALL": "C",
        "LD_PRELOAD": FAKETIME,
        "FAKETIME": "+3000d",
        "SOURCE_DATE_EPOCH": "1",
    }
    module = "tests.integration.iso_image.elsewhere"
    words = [sys.executable, "-m", module, str(folder / "inputs.json"), str(folder / "out here")]
    script = 'umask 077; hostname elsewhere; cd /; exec "$@"'
    argv = ["unshare", "--uts", "taskset", "--cpu-list", "0", "sh", "-c", script, "sh", *words]
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), Unsigned(folder / "out here" / "unsigned")


def difference(one: Unsigned, other: Unsigned) -> str:
    """Which parts differ; and how, where diffoscope is there to say it."""
    names = {**{p: p for p in one.files()}, "boot file": "../ppn.efi", "initrd": "../initrd.zst"}
    lines = []
    for name, path in names.items():
        here, there = one.medium / path, other.medium / path
        if not there.exists() or entry_of(here) != entry_of(there):
            lines.append(f"differs: {name}")
            if shutil.which("diffoscope"):
                argv = ["diffoscope", "--text", "-", str(here), str(there)]
                said = subprocess.run(
                    argv, capture_output=True, text=True, timeout=600, check=False
                )
                lines += said.stdout.splitlines()[:60]
    return "\n".join(lines) or "only the ISO's frame differs"


@pytest.mark.fault(
    "the image is built under another path, time, zone, locale, umask, host name, on one CPU, "
    "from files in another order",
    "the same SHA-256",
)
def test_two_builds_give_the_same_bytes(made: Made, elsewhere: Path, tmp_path: Path) -> None:
    """ISO-02: everything that a machine can lend to a build is another one the second time."""
    inputs = replace(made.inputs, output=tmp_path / "unsigned", components=())
    first, _, digest = build_iso(inputs, tmp_path, Times())
    again, second = built_elsewhere(made, elsewhere)
    assert again == digest, difference(first, second)
