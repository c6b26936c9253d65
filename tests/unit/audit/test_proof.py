"""A bundle proves one tenant's entries and shows no one else's; forged ones prove nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppn.audit.checkpoint import Checkpoint, signed
from ppn.audit.note import WITNESS, NoteInvalid, Signer, parse_note, with_signatures
from ppn.audit.proof import COSIGNED, Bundle, ProofInvalid, check, parse_bundle, prove
from ppn.errors import PpnError
from tests.unit.audit.samples import BATCHES, KEY, ORIGIN, OTHER_KEY, TRUSTED, entry, make_log

ENTRIES = sum(BATCHES)
WITNESSING = Signer("ppn/witness/server", OTHER_KEY)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of fifty entries of three tenants."""
    folder = tmp_path_factory.mktemp("audit") / "log"
    make_log(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(log: Path) -> Bundle:
    """What tenant acme is given."""
    return prove(log, TRUSTED, "acme")


def test_a_bundle_has_all_of_one_tenant_and_nothing_of_another(bundle: Bundle) -> None:
    """TEN-12: each of its entries at its index; no other tenant's name, VM or token."""
    own = [number for number in range(ENTRIES) if entry(number).tenant == "acme"]
    found = check(parse_bundle(bundle.model_dump_json().encode()), TRUSTED)
    assert found.entries == tuple((number, entry(number)) for number in own)
    assert found.checkpoint.size == ENTRIES
    text = bundle.model_dump_json()
    for number in range(ENTRIES):
        other = entry(number)
        if number not in own:
            assert not {other.tenant, other.vm, other.correlation_id} & {
                word for word in text.replace("\\", "").split('"')
            }


def test_a_tenant_without_entries_has_an_empty_bundle(log: Path) -> None:
    assert check(prove(log, TRUSTED, "nobody"), TRUSTED).entries == ()


def forged(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A bundle after a change to its JSON."""
    fields = json.loads(bundle.model_dump_json())
    change(fields)
    return json.dumps(fields).encode()


def refused(data: bytes) -> str:
    """The code with which a bundle is refused."""
    with pytest.raises(PpnError) as found:
        check(parse_bundle(data), TRUSTED)
    assert isinstance(found.value, ProofInvalid | NoteInvalid)
    return found.value.code


def put(place: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Gives an entry of a bundle other values."""
    return lambda fields: fields["entries"][place].update(values)


def having(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Gives a bundle other values."""
    return lambda fields: fields.update(values)


@pytest.mark.exhaustive
def test_every_forgery_of_an_entry_is_rejected(bundle: Bundle) -> None:
    """TEN-12: other index, other bytes, other proof: for every entry of the bundle."""
    texts = [one.entry for one in bundle.entries]
    for place, one in enumerate(bundle.entries):
        near = {one.index - 1, one.index + 1, one.index ^ 2, one.index ^ 32, ENTRIES, 1 << 40}
        for index in near - {-1}:
            assert refused(forged(bundle, put(place, index=index))) == "audit_proof_wrong"
        assert refused(forged(bundle, put(place, index=-1))) == "audit_proof_malformed"
        for text in {*texts, "", "{}", one.entry.replace("acme", "globex"), one.entry + " "}:
            if text != one.entry:
                assert refused(forged(bundle, put(place, entry=text))) == "audit_proof_wrong"
        proofs: list[list[str]] = [
            list(one.proof[:-1]),
            list(one.proof[1:]),
            [*one.proof, one.proof[0]],
            list(reversed(one.proof)),
            [*one.proof[:-1], one.proof[0]],
            [*one.proof[:-1], "AAAA"],
            [*one.proof[:-1], "not base64"],
            [*one.proof[:-1], one.proof[-1].rstrip("=")],
            [],
        ]
        for proof in proofs:
            assert refused(forged(bundle, put(place, proof=proof))) == "audit_proof_wrong"


def test_other_peoples_entries_do_not_pass_as_ones_own(log: Path, bundle: Bundle) -> None:
    other = json.loads(prove(log, TRUSTED, "globex").model_dump_json())

    def mix(fields: dict[str, Any]) -> None:
        fields["entries"] = other["entries"]

    assert refused(forged(bundle, mix)) == "audit_proof_foreign"
    for name in ("globex", "", "Acme"):
        assert refused(forged(bundle, having(tenant=name))) == ("audit_proof_foreign")


def test_entries_come_once_and_in_order(bundle: Bundle) -> None:
    def twice(fields: dict[str, Any]) -> None:
        fields["entries"].insert(0, fields["entries"][0])

    def back(fields: dict[str, Any]) -> None:
        fields["entries"].reverse()

    for change in (twice, back):
        assert refused(forged(bundle, change)) == "audit_proof_wrong"


def test_checkpoints_of_others_are_rejected(bundle: Bundle) -> None:
    """TEN-12: another log's, another key's; another size or root under the old signature."""
    root = check(bundle, TRUSTED).checkpoint.root
    others = {
        "audit_origin_wrong": signed(
            Checkpoint("ppn/audit/other", ENTRIES, root), Signer("ppn/audit/other", KEY)
        ),
        "audit_key_wrong": signed(Checkpoint(ORIGIN, ENTRIES, root), Signer(ORIGIN, OTHER_KEY)),
        "audit_proof_wrong": signed(Checkpoint(ORIGIN, ENTRIES, bytes(32)), Signer(ORIGIN, KEY)),
    }
    for code, note in others.items():
        text = note.encode().decode()
        assert refused(forged(bundle, having(checkpoint=text))) == code
    for old, new in ((f"\n{ENTRIES}\n", f"\n{ENTRIES - 1}\n"), (ORIGIN, "ppn/audit/relax")):
        text = bundle.checkpoint.replace(old, new)
        assert refused(forged(bundle, having(checkpoint=text))) in (
            "audit_signature_wrong",
            "audit_origin_wrong",
        )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"tenant": "acme"}',
        b"[" * 100_000,
        b'{"format":"other","tenant":"acme","checkpoint":"","entries":[]}',
        b'{"tenant":"acme","checkpoint":"","entries":[{"index":"0","entry":"","proof":[]}]}',
        b'{"tenant":"acme","checkpoint":"","entries":[],"more":1}',
    ],
)
def test_malformed_bundles_are_rejected(data: bytes) -> None:
    assert refused(data) == "audit_proof_malformed"


def test_a_cosigned_bundle_shows_its_witness(tmp_path: Path) -> None:
    """TEN-12: who demands a witness gets no bundle past it that this witness has not signed."""
    folder = tmp_path / "log"
    make_log(folder)
    trusted = WITNESSING.verifier(WITNESS)
    with pytest.raises(NoteInvalid, match="audit_key_wrong"):
        check(prove(folder, TRUSTED, "acme"), TRUSTED, [trusted])
    note = parse_note((folder / "checkpoint").read_bytes())
    (folder / COSIGNED).mkdir()
    whole = with_signatures(note, [WITNESSING.cosign(note.text, 1_750_000_000)])
    (folder / COSIGNED / "one.note").write_bytes(whole.encode())
    found = check(prove(folder, TRUSTED, "acme"), TRUSTED, [trusted])
    assert found.witnesses == ("ppn/witness/server",)


@pytest.mark.parametrize("part", ["tile/entries/000.p/50", "tile/0/000.p/50"])
def test_a_damaged_log_proves_nothing(tmp_path: Path, part: str) -> None:
    """TEN-12: a changed entry, a changed hash, a missing tile: no bundle is made."""
    folder = tmp_path / "log"
    make_log(folder)
    path = folder / part
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(ProofInvalid, match="audit_tile_wrong"):
        prove(folder, TRUSTED, "acme")
    path.unlink()
    with pytest.raises(ProofInvalid, match="audit_tile_missing"):
        prove(folder, TRUSTED, "acme")
