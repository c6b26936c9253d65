"""One line of the capability ledger: its values, its only encoding and its signature."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ppn.errors import PpnError, Refusal
from ppn.pool.policy import DEFAULT_WEIGHT

MIN_WEIGHT, MAX_WEIGHT = 1, 10_000
MAX_MINIMUM_MIB = 1 << 30
MAX_LINE_BYTES = 512

GENESIS = hashlib.sha256(b"ppn capability ledger v1 genesis").hexdigest()
SIGNATURE_DOMAIN = b"ppn capability ledger v1 entry\n"

FIELDS = frozenset(
    {"sequence", "time", "vm", "weight", "minimum_mib", "previous", "signature"},
)
VM_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
TEXT_FIELDS = {
    "time": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
    "vm": VM_NAME,
    "previous": re.compile(r"[0-9a-f]{64}"),
    "signature": re.compile(r"[A-Za-z0-9+/]{86}=="),
}
RESTORE = "copy the ledger of a node or of the operator's machine that verifies back in place"


class LedgerDamaged(PpnError):
    """A ledger that cannot be trusted.

    Args:
        message: what is wrong with the entry.
        code: stable name of this kind of damage.
        entry: number of the first entry that broke, counted from 1.
        hint: the next step.
    """

    def __init__(self, message: str, *, code: str, entry: int, hint: str) -> None:
        super().__init__(f"ledger entry {entry}: {message}", code=code, hint=hint)
        self.entry = entry

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, with the entry's number."""
        return super().as_dict() | {"entry": self.entry}


@dataclass(frozen=True)
class Grant:
    """What a VM may have: its CPU weight (1 to 10000) and its balloon minimum in MiB.

    Raises:
        Refusal: the name, the weight or the minimum is out of range.
    """

    vm: str
    weight: int
    minimum_mib: int

    def __post_init__(self) -> None:
        check_vm_name(self.vm)
        if type(self.weight) is not int or not MIN_WEIGHT <= self.weight <= MAX_WEIGHT:
            raise Refusal(
                f"VM {self.vm}: weight {self.weight!r} is not a whole number "
                f"from {MIN_WEIGHT} to {MAX_WEIGHT}",
                code="weight_out_of_range",
                constraint="cpu weight",
                hint=f"the default is {DEFAULT_WEIGHT}; twice the weight is twice the share",
            )
        if type(self.minimum_mib) is not int or not 0 <= self.minimum_mib <= MAX_MINIMUM_MIB:
            raise Refusal(
                f"VM {self.vm}: minimum {self.minimum_mib!r} MiB is not a whole number "
                f"from 0 to {MAX_MINIMUM_MIB}",
                code="minimum_out_of_range",
                constraint="balloon minimum",
                hint="give the minimum in MiB, at most the VM's memory",
            )


@dataclass(frozen=True)
class Withdrawal:
    """The end of a VM's grant: its latest grant no longer counts.

    Raises:
        Refusal: the name is not a VM name.
    """

    vm: str

    def __post_init__(self) -> None:
        check_vm_name(self.vm)


Change = Grant | Withdrawal


@dataclass(frozen=True)
class Entry:
    """One line of a ledger; weight and minimum are both null when it withdraws a grant."""

    sequence: int
    time: str
    vm: str
    weight: int | None
    minimum_mib: int | None
    previous: str
    signature: str

    @property
    def change(self) -> Change:
        """What this entry puts in force."""
        if self.weight is None or self.minimum_mib is None:
            return Withdrawal(self.vm)
        return Grant(self.vm, self.weight, self.minimum_mib)


def check_vm_name(vm: str) -> None:
    """Refuse what is not a VM name.

    Raises:
        Refusal: not a lower-case DNS label that starts with a letter.
    """
    if not isinstance(vm, str) or VM_NAME.fullmatch(vm) is None:
        raise Refusal(
            f"VM name {vm!r} is not valid",
            code="vm_name_invalid",
            constraint="VM name",
            hint="use at most 63 of a-z, 0-9 and '-', a letter first and no '-' last",
        )


def line_hash(line: bytes) -> str:
    """Hex SHA-256 of a line with its newline, as `tail -n 1 FILE | sha256sum` prints it."""
    return hashlib.sha256(line).hexdigest()


def format_time(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC with whole seconds; it must carry its time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def encode(entry: Entry) -> bytes:
    """The one accepted encoding of an entry: sorted keys, no spaces, ASCII, a newline."""
    return _canonical(vars(entry)) + b"\n"


def sign(
    key: Ed25519PrivateKey, change: Change, *, sequence: int, time: datetime, previous: str
) -> Entry:
    """Make a change the entry at a place in the chain.

    Args:
        key: the operator's private key.
        change: what the entry puts in force.
        sequence: its number, from 1.
        time: when; must carry its time zone.
        previous: hex SHA-256 of the line before it, or `GENESIS`.
    """
    fields: dict[str, Any] = {
        "sequence": sequence,
        "time": format_time(time),
        "vm": change.vm,
        "weight": change.weight if isinstance(change, Grant) else None,
        "minimum_mib": change.minimum_mib if isinstance(change, Grant) else None,
        "previous": previous,
    }
    signature = key.sign(_signed_bytes(fields))
    return Entry(**fields, signature=base64.b64encode(signature).decode("ascii"))


def verify(line: bytes, trusted: Ed25519PublicKey, *, sequence: int, previous: str) -> Entry:
    """Read one line that must stand at a place in the chain.

    Args:
        line: the line with its newline.
        trusted: the operator's public key.
        sequence: the number it must have.
        previous: the hash it must carry.

    Raises:
        LedgerDamaged: with the kind of damage.
    """
    entry = _parse(line, sequence)
    if entry.sequence != sequence:
        raise LedgerDamaged(
            f"it has number {entry.sequence}: a line was removed, repeated or moved",
            code="ledger_wrong_sequence",
            entry=sequence,
            hint=RESTORE,
        )
    if entry.previous != previous:
        raise LedgerDamaged(
            f"it follows a line with SHA-256 {entry.previous[:12]}…, the line before it has "
            f"{previous[:12]}…: a line was replaced, or comes from another ledger",
            code="ledger_broken_chain",
            entry=sequence,
            hint=RESTORE,
        )
    try:
        trusted.verify(base64.b64decode(entry.signature), _signed_bytes(vars(entry)))
    except InvalidSignature as error:
        raise LedgerDamaged(
            "the operator's key did not sign it: it was changed, or signed with another key",
            code="ledger_bad_signature",
            entry=sequence,
            hint=RESTORE + "; when every entry fails, the public key is of another pool",
        ) from error
    return entry


def _parse(line: bytes, sequence: int) -> Entry:
    """An entry of the right form; its place and its signature are not yet checked."""

    def damaged(message: str, code: str) -> LedgerDamaged:
        return LedgerDamaged(message, code=code, entry=sequence, hint=RESTORE)

    if len(line) > MAX_LINE_BYTES:
        raise damaged(f"it is longer than {MAX_LINE_BYTES} bytes", "ledger_line_too_long")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise damaged("it is not JSON", "ledger_not_json") from error
    if not isinstance(fields, dict) or fields.keys() != FIELDS:
        raise damaged(f"its fields are not {', '.join(sorted(FIELDS))}", "ledger_wrong_fields")
    problem = _bad_value(fields)
    if problem:
        raise damaged(problem, "ledger_bad_value")
    entry = Entry(**fields)
    if encode(entry) != line:
        raise damaged(
            "it is not the canonical encoding (sorted keys, no spaces, ASCII)",
            "ledger_not_canonical",
        )
    return entry


def _bad_value(fields: Mapping[str, Any]) -> str:
    """What is wrong with an entry's values; empty when nothing is."""
    if type(fields["sequence"]) is not int:
        return f"sequence {fields['sequence']!r} is not a whole number"
    for field, pattern in TEXT_FIELDS.items():
        value = fields[field]
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            return f"{field} {value!r} is not valid"
    try:
        datetime.strptime(fields["time"], TIME_FORMAT)
        if fields["weight"] is None and fields["minimum_mib"] is None:
            Withdrawal(fields["vm"])
        else:
            Grant(fields["vm"], fields["weight"], fields["minimum_mib"])
    except (ValueError, Refusal) as error:
        return (
            error.message if isinstance(error, Refusal) else f"time {fields['time']!r} is no date"
        )
    # Base64 has spare bits at its end: only the encoding that we would write is accepted.
    signature = base64.b64decode(fields["signature"])
    if base64.b64encode(signature).decode("ascii") != fields["signature"]:
        return "signature is not canonical base64"
    return ""


def _canonical(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def _signed_bytes(fields: Mapping[str, object]) -> bytes:
    unsigned = {field: value for field, value in fields.items() if field != "signature"}
    return SIGNATURE_DOMAIN + _canonical(unsigned)
