"""Ledgers for the tests: one key, another key, as many entries as wanted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ppn.pool.ledger import Change, Grant, Withdrawal, append

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = KEY.public_key()
NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


def changes(count: int) -> tuple[Change, ...]:
    """Grants to seven VMs in turn, every ninth change a withdrawal."""
    return tuple(
        Withdrawal(f"vm{i % 7}") if i % 9 == 8 else Grant(f"vm{i % 7}", 1 + i * 11, i * 64)
        for i in range(count)
    )


def ledger(count: int, *, key: Ed25519PrivateKey = KEY) -> bytes:
    """A sound ledger."""
    return append(b"", key, changes(count), NOW)


def lines(data: bytes) -> list[bytes]:
    """The lines of a ledger with their newlines."""
    return data.splitlines(keepends=True)


class Remembering:
    """The real key, which does not verify the same signed bytes a second time.

    Thousands of damaged ledgers share their sound entries; only those are remembered.
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self.key = key
        self.verified: set[tuple[bytes, bytes]] = set()

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise unless the key signed the data."""
        if (signature, data) not in self.verified:
            self.key.verify(signature, data)
            self.verified.add((signature, data))


QUICK = cast(Ed25519PublicKey, Remembering(TRUSTED))
