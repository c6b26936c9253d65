"""The wire contract: frames, problems, and messages that are taken or refused whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ppn.errors import PpnError, Refusal
from ppn.wire.agent import Request
from ppn.wire.frames import MAX_FRAME_BYTES, FrameInvalid, encode_frame, payload_length
from ppn.wire.model import malformed
from ppn.wire.problems import ProblemBody, error_of, problem_of

SPAWN = {
    "version": 1,
    "correlation_id": "c0ffee00-1",
    "body": {
        "operation": "spawn",
        "vm": {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 256},
    },
}


def test_frame_bytes_are_fixed() -> None:
    """NP-09: the bytes another implementation would write."""
    assert encode_frame(b'{"a":1}') == b'\x00\x00\x00\x07{"a":1}'


@given(st.binary(min_size=1, max_size=4096))
def test_frame_round_trip(payload: bytes) -> None:
    """NP-09."""
    frame = encode_frame(payload)
    assert payload_length(frame[:4]) == len(payload)
    assert frame[4:] == payload


@pytest.mark.parametrize(
    "prefix", [b"", b"\0\0\0", b"\0\0\0\0", (MAX_FRAME_BYTES + 1).to_bytes(4, "big"), b"\xff" * 4]
)
def test_bad_prefix_is_refused(prefix: bytes) -> None:
    """NP-09: nothing is allocated for a length no frame may have."""
    with pytest.raises(FrameInvalid):
        payload_length(prefix)


def test_request_round_trip() -> None:
    """NP-05."""
    request = Request.model_validate(SPAWN)
    assert Request.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 2}, "version"),
        ({"correlation_id": "x"}, "correlation_id"),
        ({"extra": 1}, "extra"),
        ({"body": {"operation": "format"}}, "body"),
        ({"body": {"operation": "stop", "vm": "../x"}}, "body.stop.vm"),
        ({"body": {"operation": "resize", "vm": "web", "memory_mib": "256"}}, "memory_mib"),
        ({"deadline_seconds": 0.0}, "deadline_seconds"),
    ],
)
def test_what_breaks_the_contract_is_named(change: dict[str, object], field: str) -> None:
    """NP-04: the field is named, its value is not repeated."""
    with pytest.raises(ValidationError) as caught:
        Request.model_validate(SPAWN | change)
    refusal = malformed(caught.value)
    assert refusal.code == "request_invalid" and field in refusal.message
    assert "../x" not in refusal.message


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refusal("no room", code="memory_exhausted", constraint="memory", wanted=2, free=1), 409),
        (Refusal("unknown", code="vm_unknown", constraint="known VM"), 404),
        (PpnError("broken", code="libvirt_failed", hint="look at its log"), 500),
        (PpnError("silent", code="agent_timeout"), 504),
    ],
)
def test_error_is_the_same_on_the_other_side(error: PpnError, status: int) -> None:
    """NP-10: code, numbers and hint survive the way over the wire."""
    body = problem_of(error, correlation_id="c0ffee00-1")
    assert body.status == status
    back = error_of(ProblemBody.model_validate_json(body.model_dump_json()))
    assert (type(back), back.as_dict()) == (type(error), error.as_dict())
