"""A reader of another project accepts our logs: Go's own, golang.org/x/mod/sumdb (TEN-12)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ppn.audit.merkle import consistency, leaf_hash, root_of
from ppn.audit.note import to_base64
from ppn.audit.proof import prove
from ppn.audit.tiles import Tiles
from tests.unit.audit.samples import OTHER_KEY, SIGNER, TRUSTED, encoded, make_log

SOURCE = Path(__file__).parent / "reader.go"
ENTRIES = 600


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader, built against Debian's copy of the library."""
    made = tmp_path_factory.mktemp("go") / "reader"
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(SOURCE.parents[3] / ".tools" / "go-build"),
        "GOFLAGS": "",
    }
    done = subprocess.run(
        ["go", "build", "-o", str(made), str(SOURCE)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several tiles and more."""
    folder = tmp_path_factory.mktemp("audit") / "log"
    make_log(folder, (1, 99, 300, 200))
    return folder


@pytest.fixture(scope="module")
def shown(log: Path) -> dict[str, Any]:
    """What the reader is shown: one tenant's proofs, and how the log grew."""
    bundle = prove(log, TRUSTED, "acme")
    leaves = [leaf_hash(one) for one in encoded(ENTRIES)]
    tiles = Tiles(log, ENTRIES)
    return {
        "vkey": TRUSTED.text(),
        "checkpoint": bundle.checkpoint,
        "entries": [one.model_dump() for one in bundle.entries],
        "consistency": [
            {
                "old": old,
                "root": to_base64(root_of(leaves[:old])),
                "proof": [to_base64(one) for one in consistency(tiles.node, old, ENTRIES)],
            }
            for old in (1, 2, 100, 255, 256, 257, 400, 511, 512, 599)
        ],
    }


def read(reader: Path, log: Path, shown: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What the reader says."""
    return subprocess.run(
        [str(reader), str(log)],
        input=json.dumps(shown),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_accepts_checkpoint_tiles_and_proofs(
    reader: Path, log: Path, shown: dict[str, Any]
) -> None:
    """TEN-12: signature, inclusion, consistency; the proofs it makes itself are the same."""
    done = read(reader, log, shown)
    assert (done.returncode, done.stdout.split()) == (0, ["201", "10"]), done.stderr


def test_it_refuses_what_we_refuse(reader: Path, log: Path, shown: dict[str, Any]) -> None:
    """TEN-12: it really looks: another key, another entry, another history."""
    other = type(SIGNER)(SIGNER.name, OTHER_KEY).verifier(1).text()
    entry, growth = shown["entries"][0], shown["consistency"][2]
    wrong = [
        {**shown, "vkey": other},
        {**shown, "checkpoint": shown["checkpoint"].replace("\n600\n", "\n599\n")},
        {**shown, "entries": [{**entry, "entry": entry["entry"].replace("acme", "evil")}]},
        {**shown, "entries": [{**entry, "index": entry["index"] + 1}]},
        {**shown, "consistency": [{**growth, "root": to_base64(bytes(32))}]},
        {**shown, "consistency": [{**growth, "old": growth["old"] + 1}]},
    ]
    for one in wrong:
        done = read(reader, log, one)
        assert done.returncode == 1 and "not accepted" in done.stderr
