"""Length-prefixed frames: four bytes of length, big-endian, then that many bytes of JSON."""

from __future__ import annotations

from ppn.errors import PpnError

PREFIX_BYTES = 4
# A spec with its user data fits many times over; a listing of a full node does too.
MAX_FRAME_BYTES = 4 * 1024 * 1024


class FrameInvalid(PpnError):
    """Bytes that are no frame: too long, empty, or cut off."""

    code = "frame_invalid"


def encode_frame(payload: bytes) -> bytes:
    """A payload with its length in front.

    Raises:
        FrameInvalid: empty, or longer than a frame may be.
    """
    check_length(len(payload))
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


def payload_length(prefix: bytes) -> int:
    """How many bytes follow a prefix.

    Raises:
        FrameInvalid: not four bytes, or a length no frame may have.
    """
    if len(prefix) != PREFIX_BYTES:
        raise FrameInvalid(f"a frame was cut off after {len(prefix)} bytes of its length")
    length = int.from_bytes(prefix, "big")
    check_length(length)
    return length


def check_length(length: int) -> None:
    """Refuse a length no frame may have.

    Raises:
        FrameInvalid: zero, or over the bound.
    """
    if not 0 < length <= MAX_FRAME_BYTES:
        raise FrameInvalid(
            f"a frame of {length} bytes: frames have 1 to {MAX_FRAME_BYTES} bytes",
            code="frame_too_long" if length else "frame_invalid",
        )
