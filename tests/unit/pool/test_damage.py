"""Every way to damage a ledger is found, named and numbered (LED-01)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.pool.entry import Entry, encode, sign
from ppn.pool.ledger import (
    GENESIS,
    Grant,
    LedgerDamaged,
    NotAnExtension,
    append,
    check_extension,
    read,
    sound_prefix,
)
from tests.unit.pool.samples import KEY, NOW, OTHER_KEY, QUICK, TRUSTED, changes, ledger, lines

# One of each kind, and sequence numbers of one digit and of two.
ENTRIES = 12
SOUND = ledger(ENTRIES)
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def damage_of(data: bytes) -> LedgerDamaged:
    """The refusal of a damaged ledger; fails when it is taken for sound."""
    with pytest.raises(LedgerDamaged) as found:
        read(data, QUICK)
    return found.value


@pytest.mark.exhaustive
def test_every_single_byte_mutation_is_found() -> None:
    """LED-01: every byte of the file, one bit flipped."""
    for place, old in enumerate(SOUND):
        found = damage_of(SOUND[:place] + bytes([old ^ 1]) + SOUND[place + 1 :])
        assert found.entry == SOUND[:place].count(b"\n") + 1, (place, old, found.code)


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_any_byte_may_become_any_other(place: int, difference: int) -> None:
    """LED-01: the same over all 255 other values of a byte, sampled."""
    damaged = bytearray(SOUND)
    damaged[place] ^= difference
    assert damage_of(bytes(damaged)).entry == SOUND[:place].count(b"\n") + 1


@given(st.integers(0, len(SOUND)), st.binary(min_size=1, max_size=40))
def test_inserted_bytes_are_found(place: int, inserted: bytes) -> None:
    """LED-01: nothing can be put in between, not even a line end."""
    damage_of(SOUND[:place] + inserted + SOUND[place:])


@pytest.mark.exhaustive
def test_a_file_cut_inside_a_line_is_torn() -> None:
    """LED-01: a torn tail has its own name at every length, and its hint leaves a sound ledger."""
    whole = 0
    for length in range(1, len(SOUND)):
        cut = SOUND[:length]
        if cut.endswith(b"\n"):
            whole = length
            continue
        found = damage_of(cut)
        assert (found.code, found.entry) == ("ledger_torn", cut.count(b"\n") + 1)
        assert f"truncate -s {whole} FILE" in found.hint
    assert len(read(SOUND[:whole], TRUSTED).entries) == ENTRIES - 1
    assert sound_prefix(SOUND[: whole + 1], TRUSTED) == SOUND[:whole]


@pytest.mark.parametrize("gone", range(ENTRIES))
def test_every_deleted_line_is_found(gone: int) -> None:
    """LED-01: inside the file by its number, at the end by whoever has the longer ledger."""
    kept = lines(SOUND)
    del kept[gone]
    data = b"".join(kept)
    if gone < ENTRIES - 1:
        found = damage_of(data)
        assert (found.code, found.entry) == ("ledger_wrong_sequence", gone + 1)
        return
    with pytest.raises(NotAnExtension) as refused:
        check_extension(SOUND, data, TRUSTED)
    assert (refused.value.code, refused.value.entry) == ("ledger_rollback", ENTRIES)


@pytest.mark.parametrize("length", range(1, ENTRIES))
def test_every_shorter_ledger_is_a_rollback(length: int) -> None:
    """LED-01: a ledger cut at a line end is sound, and refused in place of the longer one."""
    short = b"".join(lines(SOUND)[:length])
    assert len(read(short, TRUSTED).entries) == length
    with pytest.raises(NotAnExtension) as refused:
        check_extension(SOUND, short, TRUSTED)
    assert (refused.value.code, refused.value.entry) == ("ledger_rollback", length + 1)
    assert len(check_extension(short, SOUND, TRUSTED).entries) == ENTRIES


def test_every_swap_and_every_repeat_is_found() -> None:
    """LED-01: any two lines exchanged, any line a second time at any place."""
    for first in range(ENTRIES):
        for second in range(first + 1, ENTRIES):
            swapped = lines(SOUND)
            swapped[first], swapped[second] = swapped[second], swapped[first]
            assert damage_of(b"".join(swapped)).entry == first + 1
        for place in range(ENTRIES + 1):
            repeated = lines(SOUND)
            repeated.insert(place, repeated[first])
            found = damage_of(b"".join(repeated))
            assert (found.code, found.entry) == (
                "ledger_wrong_sequence",
                max(first + 1, place) + 1 if place in (first, first + 1) else place + 1,
            )


def entry_after(data: bytes, **fields: Any) -> bytes:
    """A ledger with one more line, rightly made but for the given fields of a signed entry."""
    verified = read(data, TRUSTED, allow_empty=True)
    made = sign(
        fields.pop("key", KEY),
        Grant("vm1", 10_000, 0),
        sequence=fields.pop("sequence", len(verified.entries) + 1),
        time=NOW,
        previous=fields.pop("previous", verified.head),
    )
    return data + encode(Entry(**(vars(made) | fields)))


def test_forgery_with_another_key_is_found() -> None:
    """LED-01: a whole ledger, and a single entry, of a key that is not trusted."""
    assert damage_of(ledger(3, key=OTHER_KEY)).entry == 1
    found = damage_of(entry_after(SOUND, key=OTHER_KEY))
    assert (found.code, found.entry) == ("ledger_bad_signature", ENTRIES + 1)
    rehashed = append(b"", OTHER_KEY, changes(5), NOW)
    assert damage_of(lines(SOUND)[0] + b"".join(lines(rehashed)[1:])).entry == 2


def test_replay_from_another_ledger_of_the_same_key_is_found() -> None:
    """LED-01: an entry belongs to its place in its ledger, whoever signed it."""
    other = append(b"", KEY, tuple(reversed(changes(ENTRIES))), NOW)
    for place in range(1, ENTRIES):
        mixed = [*lines(SOUND)[:place], *lines(other)[place:]]
        found = damage_of(b"".join(mixed))
        assert (found.code, found.entry) == ("ledger_broken_chain", place + 1)
    for entry in lines(SOUND)[:-1]:
        assert damage_of(SOUND + entry).code == "ledger_wrong_sequence"


def test_another_history_of_the_same_key_is_a_fork() -> None:
    """LED-01: two signed histories are told apart, at the first entry that differs."""
    for same in range(ENTRIES):
        start = b"".join(lines(SOUND)[:same])
        fork = append(start, KEY, (Grant("fork", 1, 0),) * (ENTRIES - same + 1), NOW)
        with pytest.raises(NotAnExtension) as refused:
            check_extension(SOUND, fork, TRUSTED)
        assert (refused.value.code, refused.value.entry) == ("ledger_fork", same + 1)


def test_damaging_the_present_ledger_does_not_roll_it_back() -> None:
    """LED-01: what verifies before the damage still binds; the whole ledger repairs it."""
    damaged = SOUND[:-40] + b"X" + SOUND[-39:]
    assert len(check_extension(damaged, SOUND, TRUSTED).entries) == ENTRIES
    shorter = b"".join(lines(SOUND)[: ENTRIES - 1])
    assert len(check_extension(damaged, shorter, TRUSTED).entries) == ENTRIES - 1
    with pytest.raises(NotAnExtension):
        check_extension(damaged, b"".join(lines(SOUND)[: ENTRIES - 2]), TRUSTED)
    assert len(check_extension(b"rubbish", SOUND, TRUSTED).entries) == ENTRIES


LINE = lines(SOUND)[0]
FIELDS: dict[str, Any] = json.loads(LINE)
SIGNATURE = base64.b64decode(FIELDS["signature"])


def written(**other: Any) -> bytes:
    """The first line in canonical form with other values; None as text drops a field."""
    return json.dumps(FIELDS | other, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def without(field: str) -> bytes:
    """The first line in canonical form without a field."""
    fields = {name: value for name, value in FIELDS.items() if name != field}
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def spare_bits(text: str) -> str:
    """The same bytes in base64 with another last letter, whose spare bits are not zero."""
    return text[:85] + BASE64[BASE64.index(text[85]) + 1] + "=="


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "ledger_empty"),
        (lambda: b"\n", "ledger_not_json"),
        (lambda: b"\xff\xfe\n", "ledger_not_json"),
        (lambda: b"[" * 400 + b"\n", "ledger_not_json"),
        (lambda: b"9" * 500 + b"\n", "ledger_wrong_fields"),
        (lambda: b" " * 600 + b"\n", "ledger_line_too_long"),
        (lambda: b"[]\n", "ledger_wrong_fields"),
        (lambda: b"null\n", "ledger_wrong_fields"),
        (lambda: written(note="x"), "ledger_wrong_fields"),
        (lambda: without("previous"), "ledger_wrong_fields"),
        (lambda: without("signature"), "ledger_wrong_fields"),
        (lambda: written(sequence="1"), "ledger_bad_value"),
        (lambda: written(sequence=True), "ledger_bad_value"),
        (lambda: written(sequence=1.0), "ledger_bad_value"),
        (lambda: written(weight=0), "ledger_bad_value"),
        (lambda: written(weight=1.0), "ledger_bad_value"),
        (lambda: written(weight=None), "ledger_bad_value"),
        (lambda: written(minimum_mib=None), "ledger_bad_value"),
        (lambda: written(minimum_mib=float("nan")), "ledger_bad_value"),
        (lambda: written(vm="../../etc"), "ledger_bad_value"),
        (lambda: written(vm="vm0\n"), "ledger_bad_value"),
        (lambda: written(vm=None), "ledger_bad_value"),
        (lambda: written(time="2025-06-01T12:00:00+00:00"), "ledger_bad_value"),
        (lambda: written(time="2025-13-01T12:00:00Z"), "ledger_bad_value"),
        (lambda: written(time=0), "ledger_bad_value"),
        (lambda: written(previous="AB" * 32), "ledger_bad_value"),
        (lambda: written(previous=None), "ledger_bad_value"),
        (lambda: written(signature=""), "ledger_bad_value"),
        (lambda: written(signature=SIGNATURE.hex()), "ledger_bad_value"),
        (lambda: written(signature=spare_bits(FIELDS["signature"])), "ledger_bad_value"),
        (lambda: b" " + LINE, "ledger_not_canonical"),
        (lambda: LINE[:-1] + b"\r\n", "ledger_not_canonical"),
        (lambda: LINE.replace(b":", b": ", 1), "ledger_not_canonical"),
        (lambda: LINE.replace(b'"vm0"', b'"\\u0076m0"'), "ledger_not_canonical"),
        (lambda: LINE[:-2] + b',"weight":1}\n', "ledger_not_canonical"),
        (lambda: json.dumps(FIELDS).encode() + b"\n", "ledger_not_canonical"),
        (lambda: written(sequence=2), "ledger_wrong_sequence"),
        (lambda: written(sequence=0), "ledger_wrong_sequence"),
        (lambda: written(previous="0" * 64), "ledger_broken_chain"),
        (lambda: written(weight=9999), "ledger_bad_signature"),
        (lambda: written(weight=None, minimum_mib=None), "ledger_bad_signature"),
        (lambda: written(vm="vm9"), "ledger_bad_signature"),
        (lambda: written(time="2025-06-01T12:00:01Z"), "ledger_bad_signature"),
        (lambda: LINE[:-1], "ledger_torn"),
    ],
)
def test_each_kind_of_damage_has_its_code(make: Callable[[], bytes], code: str) -> None:
    """LED-01: a stable code for each kind of damage, with the entry's number and the next step."""
    assert read(LINE, TRUSTED).latest("vm0") is not None
    found = damage_of(make())
    assert (found.code, found.entry) == (code, 1)
    assert found.hint
    assert found.as_dict()["entry"] == 1
    assert str(found).startswith("ledger entry 1: ")


def test_signatures_over_the_bare_line_are_not_taken() -> None:
    """LED-01: what the key signs for another purpose cannot become an entry."""
    fields = {name: value for name, value in FIELDS.items() if name != "signature"}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    bare = base64.b64encode(KEY.sign(text)).decode()
    assert damage_of(written(signature=bare)).code == "ledger_bad_signature"
    assert FIELDS["previous"] == GENESIS
