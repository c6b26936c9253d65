"""What verification says of a log that is at work meanwhile, and of one that nobody signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import pytest

from ppn.audit import verify as verification
from ppn.audit.batches import Batch, read_batches
from ppn.audit.checkpoint import Checkpoint
from ppn.audit.fork import compare
from ppn.audit.journal import NAME, Journal
from ppn.audit.merkle import leaf_hash, root_of
from ppn.audit.note import Signer
from ppn.audit.publish import Publisher
from ppn.audit.verify import verify
from tests.unit.audit.samples import ORIGIN, OTHER_KEY, SIGNER, TRUSTED, encoded, make_log

Answer = TypeVar("Answer")
ENTRIES = encoded(40)


@pytest.fixture
def grow(in_memory: Path) -> Callable[[], None]:
    """Appends two batches to the log at `in_memory / "log"` and publishes them."""
    folder = in_memory / "log"
    make_log(folder, (3, 2))
    journal, publisher = Journal(folder / NAME, SIGNER), Publisher(folder, SIGNER)
    publisher.resume()
    journal.open()

    def more() -> None:
        for _ in range(2):
            journal.append([ENTRIES[journal.at.size]])
        publisher.publish(journal.at)

    return more


def test_a_log_that_publishes_meanwhile_is_sound(
    in_memory: Path, grow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-12: whatever is published between two looks at it is neither missing nor ahead."""

    def then_grow(look: Callable[..., Answer]) -> Callable[..., Answer]:
        def looked(*arguments: object) -> Answer:
            found = look(*arguments)
            grow()
            return found

        return looked

    for name in ("_listed", "_published"):
        monkeypatch.setattr(verification, name, then_grow(getattr(verification, name)))
    assert verify(in_memory / "log", TRUSTED).findings == ()


def test_batches_that_are_appended_meanwhile_are_no_broken_tail(
    in_memory: Path, grow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-12: what comes behind the end that was read is left to the next verification."""

    def read_then_grow(file: BinaryIO, start: int) -> Iterator[Batch]:
        yield from read_batches(file, start)
        grow()

    monkeypatch.setattr(verification, "read_batches", read_then_grow)
    report = verify(in_memory / "log", TRUSTED)
    assert (report.findings, report.torn_bytes, report.size) == ((), 0, 5)


def test_a_log_that_its_key_has_not_signed_is_no_proof_of_a_fork(tmp_path: Path) -> None:
    """TEN-12: anybody can write another history; only the log can sign one."""
    for name, signer in (("forged", Signer(ORIGIN, OTHER_KEY)), ("signed", SIGNER)):
        make_log(tmp_path / name, (2, 3), signer=signer)
    one, other = (
        Checkpoint(ORIGIN, size, root_of([leaf_hash(b"%d" % number) for number in range(size)]))
        for size in (2, 4)
    )
    assert compare(one, other, TRUSTED, tmp_path / "forged").verdict == "undecided"
    assert compare(one, other, TRUSTED, tmp_path / "signed").verdict == "fork"
