"""Signed notes, keys and cosignatures in the formats of C2SP."""

from __future__ import annotations

import pytest

from ppn.audit.checkpoint import Checkpoint, parse_checkpoint, signed, verified
from ppn.audit.note import (
    LOG,
    WITNESS,
    Note,
    NoteInvalid,
    Signer,
    from_base64,
    parse_note,
    parse_verifier,
    to_base64,
    with_signatures,
)
from tests.unit.audit.samples import KEY, ORIGIN, OTHER_KEY, SIGNER, TRUSTED

# A note and its key that another project publishes (golang.org/x/mod/sumdb/note).
FOREIGN_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
FOREIGN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZ"
    "b6KE6RyyBwJnAM=\n"
)
CHECKPOINT = Checkpoint(ORIGIN, 7, bytes(range(32)))
NOTE = signed(CHECKPOINT, SIGNER)


def code_of(data: bytes) -> str:
    """The code with which a checkpoint is refused."""
    with pytest.raises(NoteInvalid) as found:
        verified(data, TRUSTED)
    return found.value.code


def test_a_note_of_another_project_verifies() -> None:
    key = parse_verifier(FOREIGN_KEY)
    note = parse_note(FOREIGN_NOTE.encode())
    assert key.signature_in(note).name == "PeterNeumann"
    assert key.text() == FOREIGN_KEY
    assert note.encode() == FOREIGN_NOTE.encode()
    with pytest.raises(NoteInvalid, match="audit_signature_wrong"):
        key.signature_in(Note(note.text.replace("you", "You", 1), note.signatures))


def test_a_checkpoint_comes_back() -> None:
    data = NOTE.encode()
    assert verified(data, TRUSTED) == CHECKPOINT
    assert parse_verifier(TRUSTED.text()).key_id == TRUSTED.key_id
    assert data.decode().splitlines()[:3] == [ORIGIN, "7", to_base64(bytes(range(32)))]


def test_every_single_byte_mutation_of_a_checkpoint_is_found() -> None:
    """TEN-12: each bit of every byte."""
    data = NOTE.encode()
    for place, byte in enumerate(data):
        for difference in (1 << bit for bit in range(8)):
            changed = data[:place] + bytes([byte ^ difference]) + data[place + 1 :]
            with pytest.raises(NoteInvalid):
                verified(changed, TRUSTED)


def test_a_witness_signs_the_time_too() -> None:
    """A cosignature is of the kind 4, over text and time, and is no log's signature."""
    witness = Signer("ppn/witness/server", OTHER_KEY)
    made = witness.cosign(NOTE.text, 1_750_000_000)
    trusted = witness.verifier(WITNESS)
    assert trusted.verifies(NOTE.text, made) and len(made.value) == 72
    assert made.value[:8] == (1_750_000_000).to_bytes(8, "big")
    OTHER_KEY.public_key().verify(
        made.value[8:], f"cosignature/v1\ntime 1750000000\n{NOTE.text}".encode()
    )
    later = made.value[:7] + bytes([made.value[7] ^ 1]) + made.value[8:]
    assert not trusted.verifies(NOTE.text, type(made)(made.name, made.key_id, later))
    assert not trusted.verifies(NOTE.text.replace("7", "8"), made)
    assert not witness.verifier(LOG).verifies(NOTE.text, made)
    both = with_signatures(NOTE, (made,))
    assert verified(both.encode(), TRUSTED) == CHECKPOINT
    assert trusted.signature_in(parse_note(both.encode())) == made
    with pytest.raises(NoteInvalid, match="audit_key_wrong"):
        verified(both.encode(), trusted)


def test_signatures_of_others_are_ignored_and_never_enough() -> None:
    other = Signer(ORIGIN, OTHER_KEY).sign(NOTE.text)
    assert verified(Note(NOTE.text, (other, *NOTE.signatures)).encode(), TRUSTED) == CHECKPOINT
    assert code_of(Note(NOTE.text, (other,)).encode()) == "audit_key_wrong"
    (own,) = NOTE.signatures
    bad = type(own)(own.name, own.key_id, bytes(64))
    assert code_of(Note(NOTE.text, (bad,)).encode()) == "audit_signature_wrong"
    assert code_of(Note(NOTE.text, (own, bad)).encode()) == "audit_signature_wrong"
    foreign = Signer("ppn/audit/other", KEY)
    assert code_of(signed(Checkpoint("ppn/audit/other", 7, bytes(32)), foreign).encode()) == (
        "audit_origin_wrong"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        NOTE.text.encode(),
        NOTE.encode()[:-1],
        NOTE.encode().replace("—".encode(), b"--"),
        NOTE.encode() + b"\n",
        NOTE.encode().replace(b"\n", b"\r\n"),
        b"\xff" + NOTE.encode(),
        b"x" * 70_000,
        Note(NOTE.text, NOTE.signatures * 65).encode(),
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    assert code_of(data) == "audit_note_malformed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x\n",
        "x\n7\n",
        "x\n7\nAAAA\n",
        f"x\n07\n{to_base64(bytes(32))}\n",
        f"x\n-1\n{to_base64(bytes(32))}\n",
        f"\n7\n{to_base64(bytes(32))}\n",
        f"x\n7\n{to_base64(bytes(33))}\n",
        f"x\n7\n{to_base64(bytes(32))}\n\nmore\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(NoteInvalid):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        TRUSTED.text()[:-2],
        TRUSTED.text().replace("+", " ", 1),
        FOREIGN_KEY.replace("c74f20a3", "c74f20a4"),
        f"x+00000000+{to_base64(bytes([9]) + bytes(32))}",
    ],
)
def test_malformed_keys_are_refused(text: str) -> None:
    with pytest.raises(NoteInvalid, match="audit_key_malformed"):
        parse_verifier(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "x" * 256])
def test_names_of_logs_hold_no_space_and_no_plus(name: str) -> None:
    with pytest.raises(NoteInvalid, match="audit_origin_invalid"):
        Signer(name, KEY)


def test_base64_has_one_spelling() -> None:
    assert from_base64("AAE=") == b"\x00\x01"
    assert from_base64("AAF=") is None
    assert from_base64("AAE") is None
    assert from_base64("AA E=") is None
