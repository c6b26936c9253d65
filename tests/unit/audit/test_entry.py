"""An entry has one encoding, whatever strangers put into it (TEN-11)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.audit.entry import MAX_BYTES, MAX_TEXT, Entry, EntryInvalid, encode, ends, parse
from tests.unit.audit.samples import NOW, encoded, entry

ANY_TEXT = st.text(st.characters(), max_size=MAX_TEXT)
ENTRIES = st.builds(
    lambda texts, at, ended, count: Entry(
        at=at,
        tenant=texts[0],
        vm=texts[1],
        operation="create",
        outcome="refused" if count else "failed" if ended is not None else "allowed",
        source=texts[2],
        token=texts[3],
        correlation_id=texts[4],
        code="no_room" if count or ended is not None else "",
        of=None if count else ended,
        count=count or 1,
    ),
    st.tuples(*[ANY_TEXT] * 5),
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 2)),
    st.none() | st.integers(0, (1 << 53) - 1),
    st.none() | st.integers(1, (1 << 53) - 1),
)
INJECTIONS = [
    'x"}\n{"tenant":"other"',
    "line\nend",
    "\r\n",
    "= 1 AAAA",
    "\x00",
    "\u2028\u2029",
    "\ud800",
    "𐀀" * MAX_TEXT,
    "\\",
    '"' * MAX_TEXT,
    "'; DROP TABLE entries; --",
    "../../etc/passwd",
    "<script>",
]


def test_an_entry_says_who_what_when_and_from_where() -> None:
    """TEN-11: tenant, VM, operation, time and source stand in every entry, under fixed names."""
    assert json.loads(encode(entry(0))) == {
        "at": "2025-06-01T12:00:00.000000Z",
        "code": "",
        "correlation_id": "0" * 32,
        "of": None,
        "operation": "create",
        "outcome": "allowed",
        "source": "10.8.0.1",
        "tenant": "acme",
        "token": "token0",
        "vm": "vm-0000000000000000",
    }


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("name", ["tenant", "vm", "source", "token", "correlation_id"])
def test_injected_text_stays_inside_its_string(name: str, text: str) -> None:
    """TEN-11: one line of printable ASCII, and the value comes back as it was."""
    made = Entry(**{**vars(entry(0)), name: text})
    data = encode(made)
    assert all(32 <= byte < 127 for byte in data) and len(data) <= MAX_BYTES
    assert parse(data) == made
    assert not data.startswith(b"= ")


@given(ENTRIES)
def test_every_entry_comes_back(made: Entry) -> None:
    """TEN-11: nothing is lost, and the quick judgement is the same as the whole one."""
    data = encode(made)
    assert parse(data) == made
    assert ends(data) == made.of


def test_an_entry_that_stands_for_one_does_not_say_so() -> None:
    """TEN-12: it has one encoding, with or without a count."""
    data = encode(Entry(**{**vars(entry(0)), "outcome": "refused", "code": "x", "count": 7}))
    assert b'"count":7' in data and parse(data).count == 7
    with pytest.raises(EntryInvalid):
        parse(data.replace(b'"count":7', b'"count":1'))


@given(st.sampled_from(encoded(9)), st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_the_quick_judgement_is_the_whole_one(
    data: bytes, place: int, put: bytes, gone: int
) -> None:
    """TEN-12: for changed bytes too."""
    changed = data[:place] + put + data[place + gone :]
    try:
        expected: object = parse(changed).of
    except EntryInvalid:
        expected = EntryInvalid
    try:
        found: object = ends(changed)
    except EntryInvalid:
        found = EntryInvalid
    assert found == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "maybe"},
        {"outcome": "allowed", "code": "no_room"},
        {"outcome": "allowed", "of": 1},
        {"outcome": "refused", "code": ""},
        {"outcome": "refused", "code": "No room"},
        {"outcome": "refused", "code": "x", "of": 1},
        {"outcome": "done", "of": None},
        {"outcome": "done", "of": -1},
        {"outcome": "done", "of": True},
        {"outcome": "done", "of": 1 << 53},
        {"outcome": "done", "of": 1, "code": "x"},
        {"outcome": "failed", "of": 1},
        {"count": 2},
        {"outcome": "refused", "code": "x", "count": 0},
        {"outcome": "refused", "code": "x", "count": True},
        {"outcome": "refused", "code": "x", "count": 1 << 53},
        {"operation": "Create"},
        {"operation": ""},
        {"operation": None},
        {"tenant": None},
        {"tenant": "x" * (MAX_TEXT + 1)},
        {"source": 7},
        {"at": datetime(2025, 6, 1)},
        {"at": NOW.astimezone(timezone(timedelta(hours=2)))},
        {"at": "2025-06-01T12:00:00.000000Z"},
    ],
)
def test_what_is_no_entry_is_refused(fields: dict[str, Any]) -> None:
    """TEN-11: nothing half-known gets into the log."""
    with pytest.raises(EntryInvalid):
        encode(Entry(**{**vars(entry(0)), **fields}))


LINE = encode(entry(1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 5000,
        b"9" * 5000,
        b"\xff" + LINE,
        LINE + b" ",
        b" " + LINE,
        LINE.replace(b":", b": ", 1),
        LINE.replace(b'"acme"', b'"\\u0061cme"'),
        LINE.replace(b'"tenant"', b'"Tenant"'),
        LINE[:-1] + b',"x":1}',
        LINE[:-1] + b',"vm":"other"}',
        LINE.replace(b'"of":0', b'"of":0.0'),
        LINE.replace(b'"of":0', b'"of":-0'),
        LINE.replace(b"2025-06-01", b"2025-02-30"),
        LINE.replace(b"Z", b"+00:00"),
        b"x" * (MAX_BYTES + 1),
    ],
)
def test_other_encodings_are_refused(data: bytes) -> None:
    """TEN-12: one encoding, so that one entry has one hash."""
    assert ends(LINE) == 0
    for judge in (parse, ends):
        with pytest.raises(EntryInvalid):
            judge(data)
