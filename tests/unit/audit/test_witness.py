"""What a witness signs and what it never signs (TEN-12)."""

from __future__ import annotations

import asyncio
import shutil
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import httpx
import pytest

from ppn.audit.checkpoint import Checkpoint, signed
from ppn.audit.merkle import EMPTY_ROOT, consistency, leaf_hash, node_of, root_of
from ppn.audit.note import (
    MAX_SIGNATURES,
    WITNESS,
    Note,
    Signature,
    Signer,
    parse_signatures,
    to_base64,
    with_signatures,
)
from ppn.audit.witness.app import create_app, guarded
from ppn.audit.witness.policy import SizeConflict, WitnessRefusal, parse_submission
from ppn.audit.witness.service import Witness
from ppn.audit.witness.settings import KnownLog, WitnessSettings
from ppn.audit.witness.store import MOST_FORKS, MemoryDamaged, MemoryLost, Store
from ppn.wire.problems import status_of
from tests.unit.audit.samples import KEY, ORIGIN, OTHER_KEY, SIGNER, TRUSTED

ADDRESS = "10.8.0.1"
NAME = "ppn/witness/server"
LEAVES = [leaf_hash(bytes([number])) for number in range(40)]
REWRITTEN = [leaf_hash(b"other"), *LEAVES[1:]]


def note(size: int, leaves: list[bytes] = LEAVES, signer: Signer = SIGNER) -> Note:
    """A signed checkpoint of the first leaves."""
    return signed(Checkpoint(signer.name, size, root_of(leaves[:size])), signer)


def body(old: int, new: int, leaves: list[bytes] = LEAVES, made: Note | None = None) -> bytes:
    """A submission with an honest proof."""
    proof = consistency(node_of(leaves[:new]), old, new)
    lines = [f"old {old}", *map(to_base64, proof), "", ""]
    return "\n".join(lines).encode() + (made or note(new, leaves)).encode()


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    """A witness of one log."""
    memory = Store(tmp_path)
    memory.begin(new=True)
    return Witness(Signer(NAME, OTHER_KEY), {ORIGIN: IPv4Address(ADDRESS)}, memory, lambda: 1.75e9)


def add(witness: Witness, data: bytes) -> None:
    """Submit, and check the cosignature over what was submitted."""
    (made,) = parse_signatures(witness.add_checkpoint(data, ADDRESS, TRUSTED.text()))
    text = parse_submission(data).note.decode().rpartition("\n\n")[0] + "\n"
    assert witness.signer.verifier(WITNESS).verifies(text, made)


def refusal(witness: Witness, data: bytes, source: str = ADDRESS, key: str = "") -> WitnessRefusal:
    """The refusal of a submission; nothing is remembered of it."""
    before = witness.known()
    with pytest.raises(WitnessRefusal) as found:
        witness.add_checkpoint(data, source, key or TRUSTED.text())
    after = witness.known()
    assert [one["checkpoint"] for one in after] == [one["checkpoint"] for one in before]
    return found.value


def test_a_log_that_grows_is_signed_at_each_size(witness: Witness) -> None:
    """TEN-12: from nothing, by one, by many, and the same once more."""
    for old, new in ((0, 1), (1, 2), (2, 9), (9, 9), (9, 33), (33, 40)):
        add(witness, body(old, new))
    (known,) = witness.known()
    assert "\n40\n" in str(known["checkpoint"]) and known["forks"] == 0


def test_no_rollback_is_signed(witness: Witness) -> None:
    """TEN-12: a shorter log, whatever old size it claims; the answer names the size."""
    add(witness, body(0, 20))
    for old in (0, 1, 5, 10):
        found = refusal(witness, body(old, 10))
        assert isinstance(found, SizeConflict) and found.size == 20
    assert refusal(witness, body(0, 10).replace(b"old 0", b"old 20")).code == (
        "audit_submission_malformed"
    )


@pytest.mark.fault(
    "a log's own host rewrites it and signs the new history",
    "each witness refuses to sign it and keeps both checkpoints: they are the proof",
)
def test_no_fork_is_signed_and_both_sides_are_kept(witness: Witness, tmp_path: Path) -> None:
    """TEN-12: the same size with another root; a longer log that does not begin with the first."""
    add(witness, body(0, 20))
    same = body(20, 20, REWRITTEN)
    assert refusal(witness, same).code == "audit_fork"
    assert refusal(witness, body(20, 30, REWRITTEN)).code == "audit_inconsistent"
    assert refusal(witness, body(20, 30).replace(b"A", b"B", 1)).code in (
        "audit_inconsistent",
        "audit_submission_malformed",
    )
    (known,) = witness.known()
    assert int(str(known["forks"])) >= 2
    kept = sorted(path.read_bytes() for path in tmp_path.glob("logs/*.b.note"))
    assert parse_submission(same).note in kept
    assert all(b"\n20\n" in path.read_bytes() for path in tmp_path.glob("logs/*.a.note"))
    add(witness, body(20, 30))


def test_what_is_kept_of_forks_is_bounded(witness: Witness, tmp_path: Path) -> None:
    add(witness, body(0, 2))
    for number in range(MOST_FORKS + 5):
        forged = [leaf_hash(bytes([number, 1])), *LEAVES]
        assert refusal(witness, body(2, 2, forged)).code == "audit_fork"
    assert len(list(tmp_path.glob("logs/*.b.note"))) == MOST_FORKS


def test_only_the_known_log_with_its_first_key_is_signed(witness: Witness) -> None:
    """TEN-12: another log; the right one from elsewhere; another key, first and later."""
    other = Signer("ppn/audit/other", KEY)
    other_key = Signer(ORIGIN, OTHER_KEY)
    cases = [
        (body(0, 1, made=note(1, signer=other)), ADDRESS, "", "audit_origin_unknown", 404),
        (body(0, 1), "10.8.0.9", "", "audit_key_wrong", 403),
        (body(0, 1), ADDRESS, other.verifier(1).text(), "audit_key_wrong", 403),
        (body(0, 1), ADDRESS, "nonsense", "audit_key_malformed", 403),
        (body(0, 1), ADDRESS, other_key.verifier(1).text(), "audit_key_wrong", 403),
    ]
    for data, source, key, code, status in cases:
        found = refusal(witness, data, source, key)
        assert (found.code, status_of(found)) == (code, status)
    add(witness, body(0, 1))
    # From now on the key is known, and it is the signature that counts.
    witness.add_checkpoint(body(1, 2), "10.8.0.9", "")
    forged = body(2, 3, made=note(3, signer=other_key))
    assert refusal(witness, forged, ADDRESS, other_key.verifier(1).text()).code == "audit_key_wrong"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"old 0\n",
        body(0, 1).replace(b"old 0", b"old 00"),
        body(0, 1).replace(b"old 0", b"old -1"),
        body(0, 1).replace(b"old 0", b"old x"),
        body(0, 1).replace(b"old 0", b"new 0"),
        body(0, 1).replace(b"old 0", b"old \xef\xbc\x90"),
        body(0, 1).replace(b"old 0", b"old 0\nAAAA"),
        body(0, 1).replace(b"old 0", b"old 0\n" + to_base64(bytes(32)).encode() * 2),
        body(0, 1).replace(b"old 0", b"old 0" + (b"\n" + to_base64(bytes(32)).encode()) * 64),
        body(0, 1).replace(b"old 0", b"old 2"),
        body(0, 1).replace(b"old 0\n\n", b"old 0\n"),
    ],
)
def test_malformed_submissions_are_refused(witness: Witness, data: bytes) -> None:
    found = refusal(witness, data)
    assert status_of(found) in (400, 409)


def test_only_nodes_of_the_pool_may_ask(witness: Witness) -> None:
    """MESH-01: by the mesh address a request comes from; customers are no nodes."""
    settings = WitnessSettings(
        name=NAME,
        address=IPv4Address("10.8.0.2"),
        mesh_range=IPv4Network("10.8.0.0/24"),
        logs=(KnownLog(origin=ORIGIN, address=IPv4Address(ADDRESS)),),
        callers=(IPv4Address("10.8.0.3"),),
    )
    app = guarded(create_app(witness), settings)

    async def status(source: str) -> int:
        transport = httpx.ASGITransport(app, client=(source, 7))
        async with httpx.AsyncClient(transport=transport, base_url="http://witness") as client:
            return (await client.get("/vkey")).status_code

    found = [asyncio.run(status(f"10.8.0.{number}")) for number in (1, 3, 9, 200)]
    assert found == [200, 200, 403, 403]


def test_a_first_proof_must_be_empty(witness: Witness) -> None:
    data = body(0, 1).replace(b"old 0", b"old 0\n" + to_base64(bytes(32)).encode())
    assert status_of(refusal(witness, data)) == 422


def test_an_empty_log_may_grow(witness: Witness) -> None:
    empty = signed(Checkpoint(ORIGIN, 0, EMPTY_ROOT), SIGNER)
    add(witness, b"old 0\n\n" + empty.encode())
    add(witness, body(0, 3))


def test_a_witness_that_cannot_remember_does_not_sign(witness: Witness, tmp_path: Path) -> None:
    """TEN-12: neither without its memory, nor before it is written."""
    add(witness, body(0, 1))
    (memory,) = tmp_path.glob("logs/*.json")
    memory.write_text("{")
    with pytest.raises(MemoryDamaged):
        witness.add_checkpoint(body(1, 2), ADDRESS, TRUSTED.text())
    gone = Witness(witness.signer, witness.logs, Store(tmp_path / "missing"), witness.clock)
    with pytest.raises(MemoryDamaged):
        gone.add_checkpoint(body(0, 1), ADDRESS, TRUSTED.text())


def test_strange_signatures_do_not_fill_the_memory(witness: Witness) -> None:
    """TEN-12: a note as full as a note may be is signed, and the log can go on from it."""
    add(witness, body(0, 3))
    strange = (Signature("stranger", b"0123", bytes(64)),) * (MAX_SIGNATURES - 1)
    add(witness, body(3, 3, made=with_signatures(note(3), strange)))
    add(witness, body(3, 4))


def test_a_stranger_cannot_accuse_a_log(witness: Witness) -> None:
    """TEN-12: sent by another node, a checkpoint with a false proof is no trace of a fork."""
    add(witness, body(0, 3))
    false = body(3, 4).replace(b"\n\n", b"\n" + to_base64(bytes(32)).encode() + b"\n\n", 1)
    assert refusal(witness, false, source="10.8.0.9").code == "audit_inconsistent"
    (known,) = witness.known()
    assert known["forks"] == 0


@pytest.mark.fault(
    "a witness loses what it remembered of a log",
    "it signs nothing of that log until an operator says so: `witness_forgot`",
)
def test_a_witness_that_forgot_does_not_sign(witness: Witness, tmp_path: Path) -> None:
    """TEN-12: neither the old history nor another, from the start or from where it was."""
    add(witness, body(0, 20))
    (memory,) = tmp_path.glob("logs/*.json")
    memory.unlink()
    for data in (body(0, 1), body(20, 21), body(0, 5, REWRITTEN)):
        with pytest.raises(MemoryLost) as caught:
            witness.add_checkpoint(data, ADDRESS, TRUSTED.text())
        assert caught.value.code == "witness_forgot"
    assert witness.store.forget(ORIGIN, "then")
    add(witness, body(0, 5))


def test_a_witness_without_any_memory_does_not_begin(witness: Witness, tmp_path: Path) -> None:
    """TEN-12: it has a key, so it has signed something."""
    add(witness, body(0, 20))
    (tmp_path / "known").unlink()
    # What is there still says what it knows.
    Store(tmp_path).begin(new=False)
    assert witness.store.known() == (ORIGIN,)
    (tmp_path / "known").unlink()
    shutil.rmtree(tmp_path / "logs")
    with pytest.raises(MemoryLost):
        Store(tmp_path).begin(new=False)
    with pytest.raises(MemoryLost):
        witness.add_checkpoint(body(0, 5), ADDRESS, TRUSTED.text())
    assert not witness.store.forget(ORIGIN, "then")
    Store(tmp_path).begin(new=False)
    add(witness, body(0, 5))


def test_what_a_witness_forgets_on_demand_is_kept(witness: Witness, tmp_path: Path) -> None:
    """TEN-12: it may be wanted as proof; the other logs stay known."""
    add(witness, body(0, 20))
    assert witness.store.forget(ORIGIN, "then") and witness.store.known() == ()
    (kept,) = tmp_path.glob("logs/*.json.then")
    assert "\\n20\\n" in kept.read_text()
    # Damaged or not: nothing else helps then.
    add(witness, body(0, 20))
    for name in ("known", "logs/*.json"):
        (damaged,) = tmp_path.glob(name)
        damaged.write_text("{")
    assert witness.store.forget(ORIGIN, "later")
    add(witness, body(0, 20))


def test_a_crash_before_a_log_is_known_is_no_loss(
    witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-12: nothing was signed yet, so it begins again."""

    def cut(self: Store, known: tuple[str, ...]) -> None:
        raise MemoryDamaged("power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_remember", cut)
        with pytest.raises(MemoryDamaged):
            witness.add_checkpoint(body(0, 3), ADDRESS, TRUSTED.text())
    Store(tmp_path).begin(new=False)
    add(witness, body(3, 5))
