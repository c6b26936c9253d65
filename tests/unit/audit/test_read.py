"""Which intents of a log have no outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ppn.audit import read
from ppn.audit.entry import Entry, EntryInvalid, encode
from ppn.audit.journal import NAME, Journal
from ppn.audit.read import Filter, LogMissing, entries, unended
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


def test_what_stands_behind_damage_is_not_passed_over(tmp_path: Path) -> None:
    """TEN-12: the reader is told that there is more; a torn tail is no damage."""
    make_log(tmp_path / "log")
    journal = tmp_path / "log" / NAME
    sound = journal.read_bytes()
    assert len(list(entries(tmp_path / "log", Filter()))) == ENTRIES
    journal.write_bytes(sound[:-1])
    assert len(list(entries(tmp_path / "log", Filter()))) == ENTRIES - BATCHES[-1]
    ends = [found.start() for found in re.finditer(rb"^= ", sound, re.MULTILINE)]
    for number, end in enumerate(ends[:-1]):
        journal.write_bytes(sound[: end + 2] + b"x" + sound[end + 3 :])
        with pytest.raises(EntryInvalid) as caught:
            list(entries(tmp_path / "log", Filter()))
        assert f"first {sum(BATCHES[:number])} entries" in caught.value.message
