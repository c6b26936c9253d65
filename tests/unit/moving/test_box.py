"""What is sealed for one agent, and what becomes of it on the way."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.moving.box import Piece, Receiver, Sender

MOVE = "a" * 32
RECEIVER = Receiver(MOVE)
PIECES = st.builds(
    Piece,
    st.just(MOVE),
    st.integers(0, 64),
    st.integers(0, 1 << 52),
    st.integers(1, 1 << 52),
)


@given(PIECES, st.binary(min_size=1, max_size=512))
def test_the_receiver_reads_what_was_sealed_and_nobody_else(piece: Piece, content: bytes) -> None:
    """INV-04: another agent's key, and the same agent's key for another move, open nothing."""
    sender = Sender(MOVE, RECEIVER.key)
    box = sender.seal(piece, content)
    assert RECEIVER.open(piece, sender.key, box) == content
    assert content not in base64.b64decode(box) or len(content) < 8
    for other in (Receiver(MOVE), Receiver("b" * 32)):
        with pytest.raises(Refusal):
            other.open(piece, sender.key, box)


@given(PIECES, st.binary(min_size=1, max_size=64), st.data())
def test_a_changed_piece_is_refused(piece: Piece, content: bytes, data: st.DataObject) -> None:
    """MIG-01: any bit of it, and its place: file, offset, length and move."""
    sender = Sender(MOVE, RECEIVER.key)
    sealed = bytearray(base64.b64decode(sender.seal(piece, content)))
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    elsewhere = (
        replace(piece, number=piece.number + 1),
        replace(piece, offset=piece.offset + 1),
        replace(piece, total=piece.total + 1),
        replace(piece, move="b" * 32),
    )
    box = base64.b64encode(sealed).decode()
    for place in elsewhere:
        assert code(place, sender.key, box) == "chunk_damaged"
    sealed[at // 8] ^= 1 << at % 8
    assert code(piece, sender.key, base64.b64encode(sealed).decode()) == "chunk_damaged"


@pytest.mark.parametrize("key", ["", "A" * 43 + "=", "!" * 44, base64.b64encode(b"x").decode()])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """A point of small order, other lengths, no base64."""
    assert code(Piece(MOVE, 0, 0, 1), key, "") == "chunk_damaged"


def code(piece: Piece, sender: str, box: str) -> str:
    """The code of the refusal to open."""
    with pytest.raises(Refusal) as caught:
        RECEIVER.open(piece, sender, box)
    return caught.value.code
