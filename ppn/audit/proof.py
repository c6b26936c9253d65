"""Proofs for one tenant: its entries, and that the log has them, without anyone else's.

A bundle is one JSON object that holds all there is to check: the signed checkpoint, and for each
entry its bytes, its index and its inclusion proof. It cannot show that no entry was left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.audit.checkpoint import Checkpoint, parse_checkpoint, verified
from ppn.audit.entry import Entry, EntryInvalid, parse
from ppn.audit.merkle import inclusion, leaf_hash, root_by_inclusion
from ppn.audit.note import (
    MAX_NOTE_BYTES,
    WITNESS,
    NoteInvalid,
    Signature,
    Verifier,
    from_base64,
    parse_note,
    to_base64,
    with_signatures,
)
from ppn.audit.publish import CHECKPOINT
from ppn.audit.tiles import WIDTH, Tiles, TileUnusable
from ppn.errors import PpnError

FORMAT = "ppn-audit-proof/1"
COSIGNED = "cosigned"
MAX_BUNDLE_BYTES = 256 << 20
MOST_HASHES = 64


class ProofInvalid(PpnError):
    """A bundle that proves nothing, or a log that none can be made from."""

    code = "audit_proof_wrong"


class ProvenEntry(BaseModel):
    """An entry in a bundle.

    Args:
        index: where the log has it.
        entry: its bytes.
        proof: hashes from the leaf's sibling to the root's child, in base64.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    index: Annotated[int, Field(ge=0)]
    entry: str
    proof: Annotated[tuple[str, ...], Field(max_length=MOST_HASHES, strict=False)]


class Bundle(BaseModel):
    """What is handed to a tenant.

    Args:
        format: of this object.
        tenant: whose entries these are.
        checkpoint: the signed note, with the cosignatures there are.
        entries: by index.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: str = FORMAT
    tenant: str
    checkpoint: str
    entries: Annotated[tuple[ProvenEntry, ...], Field(strict=False)]


@dataclass(frozen=True)
class Proven:
    """What a bundle proves.

    Args:
        checkpoint: that the log signed.
        tenant: whose entries these are.
        entries: with their index.
        witnesses: names of those whose cosignature was verified.
    """

    checkpoint: Checkpoint
    tenant: str
    entries: tuple[tuple[int, Entry], ...]
    witnesses: tuple[str, ...]


def prove(folder: Path, trusted: Verifier, tenant: str) -> Bundle:
    """Make the bundle of one tenant from what a log has published.

    Args:
        folder: the log's.
        trusted: its public key.
        tenant: whose entries.

    Raises:
        NoteInvalid: the checkpoint is not what it should be.
        ProofInvalid: `audit_tile_missing`, `audit_tile_wrong`: see `ppn audit verify`.
    """
    data = _read(folder / CHECKPOINT)
    checkpoint = verified(data, trusted)
    tiles = Tiles(folder, checkpoint.size)
    try:
        found = tuple(
            ProvenEntry(
                index=index,
                entry=entry.decode("ascii"),
                proof=tuple(map(to_base64, inclusion(tiles.node, index, checkpoint.size))),
            )
            for index, entry in _entries(tiles)
            if parse(entry).tenant == tenant
        )
    except TileUnusable as error:
        raise ProofInvalid(
            f"{folder / str(error)} is missing or damaged",
            code="audit_tile_missing",
            hint="run `ppn audit verify`",
        ) from error
    except EntryInvalid as error:
        raise _damaged(error) from error
    note = with_signatures(parse_note(data), _cosignatures(folder, data))
    bundle = Bundle(tenant=tenant, checkpoint=note.encode().decode(), entries=found)
    try:
        check(bundle, trusted)
    except ProofInvalid as error:
        raise _damaged(error) from error
    return bundle


def check(bundle: Bundle, trusted: Verifier, witnesses: Sequence[Verifier] = ()) -> Proven:
    """Check a bundle, offline.

    Args:
        bundle: what was handed over.
        trusted: the log's public key.
        witnesses: keys of those who must have cosigned; all of them.

    Raises:
        NoteInvalid: the checkpoint is not the log's, or a witness has not cosigned it.
        ProofInvalid: an entry that it does not prove, or another tenant's.
    """
    if bundle.format != FORMAT:
        raise ProofInvalid(
            f"the format {bundle.format!r} is not {FORMAT!r}", code="audit_proof_malformed"
        )
    note = parse_note(bundle.checkpoint.encode())
    checkpoint = verified(note.encode(), trusted)
    for witness in witnesses:
        if witness.kind != WITNESS or witness.key == trusted.key:
            raise NoteInvalid(
                f"{witness.name} is no witness of {trusted.name}, but a log or its own key",
                code="audit_key_wrong",
                hint="name the key that a witness shows at /vkey",
            )
        witness.signature_in(note)
    entries = []
    last = -1
    for one in bundle.entries:
        if one.index <= last:
            raise ProofInvalid(f"entry {one.index} does not come after entry {last}")
        last = one.index
        entries.append((one.index, _checked(one, checkpoint, bundle.tenant)))
    names = tuple(witness.name for witness in witnesses)
    return Proven(checkpoint, bundle.tenant, tuple(entries), names)


def parse_bundle(data: bytes) -> Bundle:
    """Read a bundle; nothing is verified.

    Raises:
        ProofInvalid: `audit_proof_malformed`.
    """
    try:
        return Bundle.model_validate(json.loads(data))
    except (ValueError, RecursionError, ValidationError) as error:
        raise ProofInvalid("this is no bundle of proofs", code="audit_proof_malformed") from error


def _checked(one: ProvenEntry, checkpoint: Checkpoint, tenant: str) -> Entry:
    proof = [from_base64(text) for text in one.proof]
    hashes = [value for value in proof if value is not None]
    data = one.entry.encode()
    root = root_by_inclusion(leaf_hash(data), one.index, checkpoint.size, hashes)
    if len(hashes) != len(proof) or root != checkpoint.root:
        raise ProofInvalid(
            f"the log of {checkpoint.size} entries does not have this entry at {one.index}",
            hint="the bundle was altered, or made for another log",
        )
    try:
        entry = parse(data)
    except EntryInvalid as error:
        raise ProofInvalid(error.message, code=error.code) from error
    if entry.tenant != tenant:
        raise ProofInvalid(
            f"entry {one.index} is not of tenant {tenant!r}", code="audit_proof_foreign"
        )
    return entry


def _entries(tiles: Tiles) -> Iterator[tuple[int, bytes]]:
    for number in range(-(-tiles.size // WIDTH)):
        yield from enumerate(tiles.entries(number), start=number * WIDTH)


def _cosignatures(folder: Path, checkpoint: bytes) -> Iterator[Signature]:
    """The witnesses' signatures of this very checkpoint."""
    own = parse_note(checkpoint)
    for path in sorted((folder / COSIGNED).glob("*.note")):
        try:
            note = parse_note(_read(path))
            same = parse_checkpoint(note.text) == parse_checkpoint(own.text)
        except NoteInvalid:
            continue
        if same:
            yield from (one for one in note.signatures if one not in own.signatures)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_NOTE_BYTES + 1)
    except OSError as error:
        raise ProofInvalid(
            f"cannot read {path}: {error.strerror}",
            code="audit_checkpoint_missing",
            hint="name the folder of a log that has been published",
        ) from error


def _damaged(error: PpnError) -> ProofInvalid:
    return ProofInvalid(
        f"the log cannot prove its own entries: {error.message}",
        code="audit_tile_wrong",
        hint="run `ppn audit verify`",
    )
