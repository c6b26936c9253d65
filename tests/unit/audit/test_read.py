"""Which intents of a log have no outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.audit import read
from ppn.audit.entry import Entry, encode
from ppn.audit.journal import NAME, Journal
from ppn.audit.read import LogMissing, unended
from tests.unit.audit.samples import BATCHES, SIGNER, entry, make_log

ENTRIES = sum(BATCHES)


@pytest.mark.parametrize("near", [1, 700, 5000, 16 << 20])
def test_an_intent_without_an_outcome_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """TEN-10: with its own index, wherever the reading begins."""
    make_log(tmp_path / "log")
    assert unended(tmp_path / "log") == {}
    monkeypatch.setattr(read, "UNENDED_BYTES", near)
    journal = Journal(tmp_path / "log" / NAME, SIGNER)
    journal.open()
    # A text that reads like an intent is none, and one whose outcome came late is ended.
    hostile = Entry(**{**vars(entry(2)), "vm": '","outcome":"allowed","x":"'})
    journal.append([encode(entry(0)), encode(hostile)])
    journal.append([encode(entry(3))])
    ended = Entry(**{**vars(entry(1)), "of": ENTRIES})
    journal.append([encode(ended)])
    journal.close()
    # So near that only the last batch is read; nearer than that, all is.
    expected = {} if near == 700 else {ENTRIES + 2: entry(3)}
    assert unended(tmp_path / "log") == expected


def test_without_a_log_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(LogMissing):
        unended(tmp_path)
