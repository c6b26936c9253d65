"""Logs for the tests: one key, another key, entries of three tenants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ppn.audit.entry import Entry, encode
from ppn.audit.journal import NAME, Journal
from ppn.audit.note import LOG, Signer, Verifier
from ppn.audit.publish import Publisher

ORIGIN = "ppn/audit/relay"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SIGNER = Signer(ORIGIN, KEY)
TRUSTED = SIGNER.verifier(LOG)
NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
# Fifty entries in batches of every kind: alone, few, many.
BATCHES = (1, 1, 2, 5, 13, 28)


def entry(number: int) -> Entry:
    """An intent, its outcome, and a refusal in turn."""
    kinds = {0: ("allowed", "", None), 1: ("done", "", number - 1), 2: ("refused", "no_room", None)}
    outcome, code, of = kinds[number % 3]
    return Entry(
        at=NOW + timedelta(seconds=number),
        tenant=("acme", "globex", "initech")[number // 3 % 3],
        vm=f"vm-{number // 3:016d}",
        operation=("create", "stop", "destroy")[number % 3],
        outcome=outcome,  # type: ignore[arg-type]
        source=f"10.8.0.{number % 250 + 1}",
        token=f"token{number % 4}",
        correlation_id=f"{number:032x}",
        code=code,
        of=of,
    )


def encoded(count: int) -> list[bytes]:
    """The bytes of the first entries."""
    return [encode(entry(number)) for number in range(count)]


def make_log(
    folder: Path,
    batches: Sequence[int] = BATCHES,
    *,
    signer: Signer = SIGNER,
    first: int = 0,
    published: int | None = None,
) -> None:
    """A log on disk.

    Args:
        folder: made.
        batches: how many entries each has.
        signer: its key.
        first: the batch that is published first.
        published: how many batches are published; all when not given.
    """
    folder.mkdir(parents=True)
    entries = iter(encoded(sum(batches)))
    journal, publisher = Journal(folder / NAME, signer), Publisher(folder, signer)
    publisher.resume()
    journal.open()
    for number, count in enumerate(batches):
        journal.append([next(entries) for _ in range(count)])
        if number >= first and (published is None or number < published):
            publisher.publish(journal.at)
    journal.close()


class Remembering:
    """The real key, which does not verify the same signed bytes a second time."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self.key = key
        self.verified: set[tuple[bytes, bytes]] = set()

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise unless the key signed the data."""
        if (signature, data) not in self.verified:
            self.key.verify(signature, data)
            self.verified.add((signature, data))

    def public_bytes(self, *_: object) -> bytes:
        """The key itself, which never changes."""
        return self.key.public_bytes_raw()


QUICK = Verifier(ORIGIN, LOG, cast(Ed25519PublicKey, Remembering(TRUSTED.key)))
