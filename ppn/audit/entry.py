"""One entry of the audit log, and the one encoding it has.

The encoding is a line of JSON: keys sorted, no spaces, everything outside printable ASCII escaped.
What a stranger sends as an id thus stays inside its string, whatever it holds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from ppn.errors import PpnError

# A refused request and an allowed one's intent stand alone; what became of an intent refers to it.
Outcome = Literal["allowed", "refused", "done", "failed"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MAX_TEXT = 256
MAX_BYTES = 16384
MAX_INDEX = 1 << 53
OPERATION = re.compile(r"[a-z][a-z0-9_]{0,31}")
CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
# Almost every entry looks like this; the rest have escapes in them.
PLAIN = re.compile(
    rb'\{"at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)","code":"([a-z][a-z0-9_]{0,63})?",'
    rb'"correlation_id":"TEXT","of":(?:null|(0|[1-9][0-9]{0,14})),'
    rb'"operation":"[a-z][a-z0-9_]{0,31}","outcome":"(?:(allowed)|(refused)|(done)|failed)",'
    rb'"source":"TEXT","tenant":"TEXT","token":"TEXT","vm":"TEXT"\}'.replace(
        b"TEXT", rb"[ !#-\[\]-~]{0,256}"
    )
)
FREE_TEXTS = ("tenant", "vm", "source", "token", "correlation_id")


class EntryInvalid(PpnError):
    """What is no entry of an audit log, or not in its one encoding."""

    code = "audit_entry_malformed"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What someone asked for, or what became of it.

    Args:
        at: when, in UTC.
        tenant: whose token it was; empty when no token was good.
        vm: what it is about; empty when it is about none.
        operation: for example `create`.
        outcome: `refused`; or `allowed`, before the effect; or `done` or `failed`, after it.
        source: the mesh address the request came from.
        token: the id of its token; empty when no token was good.
        correlation_id: stands in the log lines of every service the request passed.
        code: of the refusal or failure; empty for the others.
        of: for `done` and `failed`, the index of the intent they end.
        count: for how many alike refusals it stands: of a flood only the first ones have entries
            of their own.
    """

    at: datetime
    tenant: str
    vm: str
    operation: str
    outcome: Outcome
    source: str
    token: str
    correlation_id: str
    code: str = ""
    of: int | None = None
    count: int = 1


def encode(entry: Entry) -> bytes:
    """The bytes of an entry, without an end of line.

    Raises:
        EntryInvalid: a value that no entry has.
    """
    for problem in _problems(entry):
        raise EntryInvalid(problem)
    fields = {**vars(entry), "at": _time_text(entry.at)}
    if entry.count == 1:
        # Almost every entry is one of one.
        del fields["count"]
    return _text(fields)


def parse(data: bytes) -> Entry:
    """The entry that has these bytes; any other encoding of the same values is refused.

    Raises:
        EntryInvalid: not an entry, or not in its one encoding.
    """
    if len(data) > MAX_BYTES:
        raise EntryInvalid(f"an entry has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        fields: Any = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise EntryInvalid("the bytes are no JSON in ASCII") from error
    if (
        not isinstance(fields, dict)
        or fields.keys() | {"count"} != Entry.__dataclass_fields__.keys()
    ):
        raise EntryInvalid("the fields are not those of an entry")
    entry = Entry(**{**fields, "at": _time(fields["at"])})
    if encode(entry) != data:
        raise EntryInvalid("the values are not written as ppn writes them")
    return entry


def ends(data: bytes) -> int | None:
    """The index of the intent that an entry ends, None for one that ends none.

    The same judgement as `parse`, many times as fast.

    Raises:
        EntryInvalid: not an entry, or not in its one encoding.
    """
    match = PLAIN.fullmatch(data)
    if match is None:
        return parse(data).of
    at, code, of, allowed, refused, done = match.groups()
    # Which outcome has a code, and which an intent.
    if (code is None) != bool(allowed or done) or (of is None) != bool(allowed or refused):
        return parse(data).of
    try:
        datetime.fromisoformat(at.decode())
    except ValueError:
        return parse(data).of
    return None if of is None else int(of)


def _problems(entry: Entry) -> list[str]:
    """What keeps the values from being an entry."""
    found = [
        f"{name} is no text of at most {MAX_TEXT} characters"
        for name in FREE_TEXTS
        if not isinstance(value := getattr(entry, name), str) or len(value) > MAX_TEXT
    ]
    if not isinstance(entry.at, datetime) or entry.at.utcoffset() != timedelta(0):
        found.append("at is no time in UTC")
    if not isinstance(entry.operation, str) or not OPERATION.fullmatch(entry.operation):
        found.append("operation is no name such as `create`")
    if entry.outcome not in OUTCOMES:
        return [*found, f"outcome is none of {', '.join(OUTCOMES)}"]
    if entry.outcome in ("refused", "failed"):
        if not isinstance(entry.code, str) or not CODE.fullmatch(entry.code):
            found.append(f"code is no name of an error, which {entry.outcome} needs")
    elif entry.code != "":
        found.append(f"code is given, which {entry.outcome} has not")
    if type(entry.count) is not int or not 1 <= entry.count < MAX_INDEX:
        found.append("count is no number of requests")
    elif entry.count > 1 and entry.outcome != "refused":
        found.append(f"count is given, which {entry.outcome} has not")
    if entry.outcome in ("done", "failed"):
        if type(entry.of) is not int or not 0 <= entry.of < MAX_INDEX:
            found.append(f"of is no index of an intent, which {entry.outcome} needs")
    elif entry.of is not None:
        found.append(f"of is given, which {entry.outcome} has not")
    return found


def _text(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def _time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _time(value: object) -> datetime:
    try:
        if not isinstance(value, str) or not TIME.fullmatch(value):
            raise EntryInvalid("at is no time such as 2025-06-01T12:00:00.000000Z")
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise EntryInvalid(f"at is no time: {error}") from error
