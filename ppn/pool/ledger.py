"""The capability ledger: a chain of signed entries, verified; bytes in, values out, no I/O.

A ledger is a text file of one canonical JSON object per line. Each entry carries the SHA-256 of the
line before it and the operator's Ed25519 signature; the latest entry of a VM is authoritative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ppn.errors import Refusal
from ppn.pool.entry import (
    GENESIS,
    RESTORE,
    Change,
    Entry,
    Grant,
    LedgerDamaged,
    Withdrawal,
    encode,
    line_hash,
    sign,
    verify,
)
from ppn.pool.policy import DEFAULT_WEIGHT

__all__ = [
    "DEFAULT_WEIGHT",
    "EMPTY",
    "GENESIS",
    "Change",
    "Entry",
    "Grant",
    "Ledger",
    "LedgerDamaged",
    "NotAnExtension",
    "Withdrawal",
    "append",
    "check_extension",
    "pending",
    "read",
    "sound_prefix",
]


class NotAnExtension(Refusal):
    """A sound ledger that would take back or rewrite entries which are already in force.

    Args:
        message: which entry differs and how.
        code: `ledger_rollback` or `ledger_fork`.
        entry: number of the first entry that differs, counted from 1.
        hint: the next step.
    """

    def __init__(self, message: str, *, code: str, entry: int, hint: str) -> None:
        super().__init__(message, code=code, constraint="append-only ledger", hint=hint)
        self.entry = entry

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, with the entry's number."""
        return super().as_dict() | {"entry": self.entry}


@dataclass(frozen=True)
class Ledger:
    """A verified ledger: its entries in order, and its head (SHA-256 of the last line, in hex)."""

    entries: tuple[Entry, ...] = ()
    head: str = GENESIS

    @cached_property
    def grants(self) -> Mapping[str, Entry]:
        """Per VM the entry in force; withdrawn VMs are not in it."""
        latest = {entry.vm: entry for entry in self.entries}
        return {vm: entry for vm, entry in latest.items() if entry.weight is not None}

    def latest(self, vm: str) -> Grant | None:
        """The grant in force for a VM; None when it has none or it was withdrawn (LED-01)."""
        entry = self.grants.get(vm)
        if entry is None:
            return None
        change = entry.change
        return change if isinstance(change, Grant) else None


EMPTY = Ledger()


def read(data: bytes, trusted: Ed25519PublicKey, *, allow_empty: bool = False) -> Ledger:
    """Verify a whole ledger and return it (LED-01).

    Times are recorded, not compared: clocks go wrong, and the chain gives the order.

    Args:
        data: the file's bytes.
        trusted: the operator's public key.
        allow_empty: whether no bytes at all are a ledger without entries.

    Raises:
        LedgerDamaged: with the kind of damage and the number of the first entry that broke.
    """
    if not data:
        if allow_empty:
            return EMPTY
        raise LedgerDamaged(
            "the file is empty",
            code="ledger_empty",
            entry=1,
            hint=RESTORE,
        )
    entries = tuple(entry for entry, _ in _verified(data, trusted))
    return Ledger(entries, line_hash(encode(entries[-1])))


def sound_prefix(data: bytes, trusted: Ed25519PublicKey) -> bytes:
    """The longest run of whole lines from the start that verifies; may be empty."""
    end = 0
    try:
        for _, line in _verified(data, trusted):
            end += len(line)
    except LedgerDamaged:
        return data[:end]
    return data


def check_extension(present: bytes, incoming: bytes, trusted: Ed25519PublicKey) -> Ledger:
    """Decide whether a ledger may replace the present one, and return it (LED-01).

    Of a damaged present ledger the sound entries before the damage still bind: damaging a file is
    no way to roll it back.

    Args:
        present: the bytes in force; empty when there are none.
        incoming: the bytes that would replace them.
        trusted: the operator's public key.

    Raises:
        LedgerDamaged: the incoming ledger does not verify.
        NotAnExtension: it lacks an entry of the present ledger, or has another in its place.
    """
    ledger = read(incoming, trusted)
    # The usual case first: what is a prefix of a sound ledger needs no second verification.
    kept = b"" if incoming.startswith(present) else sound_prefix(present, trusted)
    if incoming.startswith(kept):
        return ledger
    old, new = kept.splitlines(), incoming.splitlines()
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
    if same is None:
        raise NotAnExtension(
            f"the ledger ends at entry {len(new)}, the present one at {len(old)}: "
            f"entry {len(new) + 1} would be taken back",
            code="ledger_rollback",
            entry=len(new) + 1,
            hint="the ledger offered is out of date: copy the longer one over it, then try again",
        )
    raise NotAnExtension(
        f"entry {same + 1} differs from the present ledger's",
        code="ledger_fork",
        entry=same + 1,
        hint="two histories were signed: compare them with `ppn ledger show`, keep one, and put it "
        "on every node by hand",
    )


def pending(ledger: Ledger, wanted: Mapping[str, Change]) -> tuple[Change, ...]:
    """The changes a ledger still lacks, in the order of VM names.

    Args:
        ledger: the verified ledger.
        wanted: per VM name what should be in force; VMs that are not named are left as they are.
    """
    missing = []
    for vm in sorted(wanted):
        change = wanted[vm]
        now = ledger.latest(vm)
        if (now is not None) if isinstance(change, Withdrawal) else (now != change):
            missing.append(change)
    return tuple(missing)


def append(data: bytes, key: Ed25519PrivateKey, grants: Sequence[Change], time: datetime) -> bytes:
    """Sign changes and return the ledger with them at its end.

    Args:
        data: the present ledger's bytes, verified again here; empty for a new one.
        key: the operator's private key.
        grants: the changes, in order.
        time: when this happens; must carry its time zone.

    Raises:
        LedgerDamaged: the present ledger does not verify under this key.
    """
    ledger = read(data, key.public_key(), allow_empty=True)
    lines, previous = [data], ledger.head
    for sequence, change in enumerate(grants, start=len(ledger.entries) + 1):
        line = encode(sign(key, change, sequence=sequence, time=time, previous=previous))
        lines.append(line)
        previous = line_hash(line)
    return b"".join(lines)


def _verified(data: bytes, trusted: Ed25519PublicKey) -> Iterator[tuple[Entry, bytes]]:
    """Each entry with its line, verified in order; raises at the first that broke."""
    previous = GENESIS
    end = sequence = 0
    while end < len(data):
        sequence += 1
        newline = data.find(b"\n", end)
        if newline < 0:
            raise _torn(sequence, whole=end)
        line = data[end : newline + 1]
        yield verify(line, trusted, sequence=sequence, previous=previous), line
        previous, end = line_hash(line), newline + 1


def _torn(sequence: int, *, whole: int) -> LedgerDamaged:
    return LedgerDamaged(
        "the last line has no end: a write or a copy was cut short",
        code="ledger_torn",
        entry=sequence,
        hint=f"the entries before it are sound: copy a whole ledger back, or cut this file with "
        f"`truncate -s {whole} FILE` when no node has a longer one",
    )
