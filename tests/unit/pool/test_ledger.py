"""What a sound ledger says, and that it says the same after any number of extensions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.pool.entry import MAX_LINE_BYTES, MAX_MINIMUM_MIB, SIGNATURE_DOMAIN
from ppn.pool.ledger import (
    EMPTY,
    GENESIS,
    Change,
    Grant,
    Withdrawal,
    append,
    pending,
    read,
)
from tests.unit.pool.samples import KEY, NOW, TRUSTED, ledger, lines

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
GRANTS = st.builds(Grant, NAMES, st.integers(1, 10_000), st.integers(0, MAX_MINIMUM_MIB))
CHANGES = st.lists(GRANTS | st.builds(Withdrawal, NAMES), min_size=1, max_size=8)


def in_force(history: list[Change]) -> dict[str, Grant]:
    """The grants after a history, by the plainest way there is."""
    found: dict[str, Grant] = {}
    for change in history:
        if isinstance(change, Grant):
            found[change.vm] = change
        else:
            found.pop(change.vm, None)
    return found


@given(CHANGES)
def test_what_is_appended_is_read(history: list[Change]) -> None:
    """LED-01: the latest entry wins, a withdrawal ends a grant."""
    verified = read(append(b"", KEY, history, NOW), TRUSTED)
    assert [entry.change for entry in verified.entries] == history
    expected = in_force(history)
    assert {vm: verified.latest(vm) for vm in verified.grants} == expected
    assert verified.latest("not-in-it") is None


@given(CHANGES, st.integers(0, 8))
def test_appending_in_two_steps_gives_the_same_bytes(history: list[Change], cut: int) -> None:
    """LED-01: a ledger only grows; how it grew leaves no trace."""
    first = append(b"", KEY, history[:cut], NOW)
    whole = append(first, KEY, history[cut:], NOW)
    assert whole.startswith(first)
    assert whole == append(b"", KEY, history, NOW)


@given(st.dictionaries(NAMES, st.integers(1, 10_000), max_size=6), CHANGES)
def test_nothing_is_pending_after_it_was_appended(
    weights: dict[str, int], history: list[Change]
) -> None:
    """Signing what is pending leaves nothing pending: the second run appends no entry."""
    wanted: dict[str, Change] = {vm: Grant(vm, weight, 64) for vm, weight in weights.items()}
    wanted |= {change.vm: change for change in history if isinstance(change, Withdrawal)}
    data = append(b"", KEY, history, NOW)
    changes = pending(read(data, TRUSTED), wanted)
    after = read(append(data, KEY, changes, NOW), TRUSTED)
    assert pending(after, wanted) == ()
    for vm, change in wanted.items():
        assert after.latest(vm) == (change if isinstance(change, Grant) else None)


def test_pending_names_only_what_differs() -> None:
    """CPU-03: an equal grant is left alone, another is replaced, a withdrawn one is not ended."""
    data = append(b"", KEY, (Grant("a", 100, 64), Grant("b", 100, 64), Withdrawal("a")), NOW)
    wanted: dict[str, Change] = {
        "a": Withdrawal("a"),
        "b": Grant("b", 100, 64),
        "c": Grant("c", 400, 64),
    }
    assert pending(read(data, TRUSTED), wanted) == (Grant("c", 400, 64),)
    assert pending(read(data, TRUSTED), {"b": Withdrawal("b")}) == (Withdrawal("b"),)
    assert pending(read(data, TRUSTED), {}) == ()


def test_weights_400_and_100_stand_side_by_side() -> None:
    """CPU-06: a VM with active inference may weigh more than an idle archive."""
    data = append(b"", KEY, (Grant("inference", 400, 512), Grant("archive", 100, 64)), NOW)
    verified = read(data, TRUSTED)
    assert [verified.latest(vm) for vm in ("inference", "archive")] == [
        Grant("inference", 400, 512),
        Grant("archive", 100, 64),
    ]


def test_a_line_can_be_checked_with_common_tools() -> None:
    """LED-01: the documented format, taken apart without any of the code that wrote it."""
    data = ledger(3)
    assert data.endswith(b"\n")
    previous = hashlib.sha256(b"ppn capability ledger v1 genesis").hexdigest()
    for number, line in enumerate(lines(data), start=1):
        fields = json.loads(line)
        assert (fields["sequence"], fields["previous"]) == (number, previous)
        signature = base64.b64decode(fields.pop("signature"), validate=True)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        TRUSTED.verify(signature, b"ppn capability ledger v1 entry\n" + text.encode())
        previous = hashlib.sha256(line).hexdigest()
    assert read(data, TRUSTED).head == previous
    assert SIGNATURE_DOMAIN.endswith(b"\n")


def test_the_longest_entry_fits() -> None:
    """Every entry that can be granted can be read: the line bound leaves room."""
    grant = Grant("a" * 63, 10_000, MAX_MINIMUM_MIB)
    data = append(b"", KEY, (grant,), NOW)
    assert len(data) < MAX_LINE_BYTES - 32
    assert read(data, TRUSTED).latest("a" * 63) == grant


def test_times_are_utc_and_not_compared() -> None:
    """A clock that went back does not make a ledger unreadable; the chain gives the order."""
    east = timezone(timedelta(hours=2))
    data = append(b"", KEY, (Grant("a", 1, 0),), datetime(2025, 6, 1, 14, 0, tzinfo=east))
    data = append(data, KEY, (Grant("a", 2, 0),), datetime(2024, 1, 1, tzinfo=UTC))
    verified = read(data, TRUSTED)
    assert [entry.time for entry in verified.entries] == [
        "2025-06-01T12:00:00Z",
        "2024-01-01T00:00:00Z",
    ]
    assert verified.latest("a") == Grant("a", 2, 0)
    with pytest.raises(ValueError, match="time zone"):
        append(b"", KEY, (Grant("a", 1, 0),), datetime(2025, 6, 1))  # a time without its zone


def test_an_empty_ledger_has_a_head_too() -> None:
    """A node without a ledger grants nothing."""
    assert read(b"", TRUSTED, allow_empty=True) == EMPTY
    assert (EMPTY.head, EMPTY.latest("a"), EMPTY.entries) == (GENESIS, None, ())


@pytest.mark.parametrize(
    ("vm", "weight", "minimum", "code"),
    [
        ("a", 0, 64, "weight_out_of_range"),
        ("a", 10_001, 64, "weight_out_of_range"),
        ("a", True, 64, "weight_out_of_range"),
        ("a", 1.0, 64, "weight_out_of_range"),
        ("a", None, 64, "weight_out_of_range"),
        ("a", 100, -1, "minimum_out_of_range"),
        ("a", 100, "64", "minimum_out_of_range"),
        ("a", 100, MAX_MINIMUM_MIB + 1, "minimum_out_of_range"),
        ("", 100, 64, "vm_name_invalid"),
        ("A", 100, 64, "vm_name_invalid"),
        ("a\n", 100, 64, "vm_name_invalid"),
        ("../a", 100, 64, "vm_name_invalid"),
        ("a" * 64, 100, 64, "vm_name_invalid"),
        (7, 100, 64, "vm_name_invalid"),
    ],
)
def test_a_grant_out_of_range_is_refused(vm: str, weight: int, minimum: int, code: str) -> None:
    """CPU-03: what cgroup v2 would not take never becomes an entry."""
    with pytest.raises(Refusal) as refused:
        Grant(vm, weight, minimum)
    assert refused.value.code == code
    assert refused.value.hint


DOCUMENT = (Path(__file__).parents[3] / "docs/ledger.md").read_text(encoding="utf-8")


def test_the_documented_ledger_is_true() -> None:
    """LED-01: docs/ledger.md shows a real line, its key and its head."""
    line = DOCUMENT.split("```json\n")[1].split("```")[0].encode()
    pem = DOCUMENT[DOCUMENT.index("-----BEGIN") : DOCUMENT.index("END PUBLIC KEY-----") + 19]
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, Ed25519PublicKey)
    verified = read(line, key)
    assert verified.latest("web") == Grant("web", 300, 512)
    assert f"Its head is `{verified.head}`" in DOCUMENT


def test_every_code_is_documented() -> None:
    """docs/ledger.md says what to do for each code, and for none that does not exist."""
    root = Path(__file__).parents[3]
    sources = [*(root / "ppn/pool").glob("*.py"), root / "operations/ledger.py"]
    written = {
        code
        for source in sources
        for code in re.findall(r'"((?:ledger|key|operator)_[a-z_]+)"', source.read_text())
    }
    table = DOCUMENT.split("## When something is refused")[1].split("## Another key")[0]
    told = {
        code
        for row in table.splitlines()
        if row.startswith("| `")
        for code in re.findall(r"`([a-z_]+)`", row.split("|")[1])
    }
    assert told == written - {"key_unusable"}
