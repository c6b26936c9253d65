"""`ppn audit` as people and scripts use it (CLI-01)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppn.audit.checkpoint import Checkpoint, signed
from ppn.audit.entry import Entry
from ppn.audit.note import (
    LOG,
    WITNESS,
    Signer,
    parse_note,
    parse_verifier,
    with_signatures,
)
from ppn.audit.proof import parse_bundle
from tests.unit.audit.places import Place
from tests.unit.audit.samples import (
    BATCHES,
    KEY,
    ORIGIN,
    OTHER_KEY,
    SIGNER,
    TRUSTED,
    entry,
    make_log,
)

PPN = Path(sys.executable).parent / "ppn"
ENTRIES = sum(BATCHES)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of fifty entries, with its public key and older checkpoints beside it."""
    root = tmp_path_factory.mktemp("audit")
    make_log(root / "log")
    make_log(root / "older", BATCHES[:4])
    (root / "key").write_text(TRUSTED.text() + "\n")
    (root / "other-key").write_text(Signer(ORIGIN, OTHER_KEY).verifier(LOG).text())
    return root / "log"


def ppn(*argv: str | Path, code: int = 0) -> str:
    """What the command prints; its errors when it must end with another code than 0."""
    words = [str(word) for word in (PPN, "audit", *argv)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout or done.stderr


def test_verify_says_sound_or_what_is_wrong(log: Path) -> None:
    """TEN-12: in words and in JSON, and by its exit code."""
    key, older = log.parent / "key", log.parent / "older/checkpoint"
    text = ppn("verify", log, "--key", key, "--checkpoint", older)
    assert f"{ENTRIES} entries, all sound" in text and "compared with 1 checkpoints" in text
    assert json.loads(ppn("verify", log, "--key", key, "--json"))["ok"] is True
    journal = log / "journal"
    sound = journal.read_bytes()
    journal.write_bytes(sound.replace(b"globex", b"initex", 1))
    try:
        found = json.loads(ppn("verify", log, "--key", key, "--json", code=1))
        said = ppn("verify", log, "--key", key, code=1)
    finally:
        journal.write_bytes(sound)
    assert [(one["code"], one["index"]) for one in found["findings"]] == [
        ("audit_entry_altered", 3)
    ]
    assert "DAMAGED  entry 3 was altered" in said
    other = ppn("verify", log, "--key", log.parent / "other-key", code=1)
    assert "audit_key_wrong" in other
    assert "audit_key_malformed" in ppn("verify", log, "--key", journal, code=1)
    assert "file_unusable" in ppn("verify", log, "--key", log / "none", code=1)


def test_a_proof_travels_from_the_operator_to_the_tenant(log: Path, tmp_path: Path) -> None:
    """TEN-12: the bundle is one file; the tenant needs nothing else but the key."""
    key, bundle = log.parent / "key", tmp_path / "acme.json"
    bundle.write_text(ppn("prove", log, "--key", key, "--tenant", "acme"))
    assert "globex" not in bundle.read_text()
    rows = json.loads(ppn("check", bundle, "--key", key, "--json"))["entries"]
    own = [number for number in range(ENTRIES) if entry(number).tenant == "acme"]
    assert [row["index"] for row in rows] == own
    assert f"{len(own)} entries of acme, all in the log" in ppn("check", bundle, "--key", key)
    bundle.write_text(bundle.read_text().replace("create", "delete", 1))
    assert "audit_proof_wrong" in ppn("check", bundle, "--key", key, code=1)


def test_a_log_is_no_witness_of_itself(log: Path, tmp_path: Path) -> None:
    """TEN-12: neither with its key as it is, nor with the same key under a witness's name."""
    key, bundle = log.parent / "key", tmp_path / "acme.json"
    bundle.write_text(ppn("prove", log, "--key", key, "--tenant", "acme"))
    assert "audit_key_wrong" in ppn("check", bundle, "--key", key, "--witness", key, code=1)
    disguised = Signer("ppn/witness/relay", KEY)
    found = parse_bundle(bundle.read_bytes())
    note = parse_note(found.checkpoint.encode())
    both = with_signatures(note, (disguised.cosign(note.text, 1_750_000_000),)).encode().decode()
    bundle.write_text(found.model_copy(update={"checkpoint": both}).model_dump_json())
    (tmp_path / "vkey").write_text(disguised.verifier(WITNESS).text())
    assert "audit_key_wrong" in ppn(
        "check", bundle, "--key", key, "--witness", tmp_path / "vkey", code=1
    )
    assert ppn("check", bundle, "--key", key)


def test_show_and_tail_filter(log: Path) -> None:
    """TEN-11: by tenant, VM, operation, outcome, request and time."""
    rows = [json.loads(line) for line in ppn("show", log, "--json").splitlines()]
    assert [row["index"] for row in rows] == list(range(ENTRIES))
    assert rows[1]["of"] == 0 and rows[2]["code"] == "no_room"

    def indexes(*argv: str) -> list[int]:
        lines = ppn("show", log, "--json", *argv).splitlines()
        return [json.loads(line)["index"] for line in lines]

    assert indexes("--vm", entry(4).vm) == [3, 4, 5]
    assert indexes("--correlation-id", entry(7).correlation_id) == [7]
    assert indexes("--outcome", "refused", "--limit", "2") == [2, 5]
    assert indexes("--tenant", "acme", "--operation", "stop") == [1, 10, 19, 28, 37, 46]
    assert indexes("--since", "2025-06-01T12:00:48") == [48, 49]
    assert indexes("--until", "2025-06-01T12:00:02") == [0, 1]
    assert "acme from 10.8.0.3: destroy vm-0000000000000000: refused (no_room)" in ppn("show", log)
    assert len(ppn("tail", log, "-n", "3").splitlines()) == 3
    assert "audit_journal_missing" in ppn("show", log.parent, code=1)
    assert "'refused'" in ppn("show", log, "--outcome", "refusd", code=2)


def test_tail_follows(tmp_path: Path) -> None:
    """What is appended is printed soon, and nothing twice; a stranger's text stays on its line."""
    place = Place(tmp_path)
    with place.open() as log:
        log.append(entry(0))
        words = [str(PPN), "audit", "tail", str(place.folder), "-f", "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["index"] == 0
            log.append(Entry(**{**vars(entry(2)), "vm": 'x"\n{"index": 7}'}))
            time.sleep(0.1)
            log.append(entry(2))
            found = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.kill()
    assert [row["index"] for row in found] == [1, 2]
    assert len(ppn("show", place.folder).splitlines()) == 3
    assert parse_verifier(place.key.with_name("audit.key.vkey").read_text()).name == ORIGIN


def test_two_checkpoints_are_compared(log: Path, tmp_path: Path) -> None:
    """TEN-12: one size and two roots are proof of a fork by themselves."""
    key, own, older = log.parent / "key", log / "checkpoint", log.parent / "older/checkpoint"
    forked, longer = tmp_path / "forked", tmp_path / "longer"
    forked.write_bytes(signed(Checkpoint(ORIGIN, ENTRIES, bytes(32)), SIGNER).encode())
    longer.write_bytes(signed(Checkpoint(ORIGIN, 9, bytes(32)), SIGNER).encode())
    assert ppn("fork", own, own, "--key", key).startswith("the same")
    assert ppn("fork", own, forked, "--key", key, code=1).startswith("FORK")
    assert ppn("fork", own, older, "--key", key, code=1).startswith("undecided")
    assert ppn("fork", own, older, "--key", key, "--log", log).startswith("consistent")
    found = json.loads(ppn("fork", own, longer, "--key", key, "--log", log, "--json", code=1))
    assert found["verdict"] == "fork" and found["sizes"] == [9, ENTRIES]
    forged = tmp_path / "forged"
    forged.write_bytes(signed(Checkpoint(ORIGIN, 9, bytes(32)), Signer(ORIGIN, OTHER_KEY)).encode())
    assert "audit_key_wrong" in ppn("fork", own, forged, "--key", key, code=1)
