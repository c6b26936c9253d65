"""Reading another service's answer, and no more of it than there should be."""

from __future__ import annotations

import time

import httpx

from ppn.errors import PpnError


class TooLong(PpnError):
    """An answer that is longer than any sound one, or takes longer."""

    code = "answer_too_long"


async def read_body(answer: httpx.Response, most: int) -> bytes:
    """An answer's body, as it came.

    Args:
        answer: whose body was not read yet.
        most: bytes it may have.

    Raises:
        TooLong: more bytes than that.
    """
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > most:
            raise TooLong(f"an answer of more than {most} bytes")
    return bytes(content)


def read_at_once(answer: httpx.Response, most: int, seconds: float) -> bytes:
    """An answer's body, as it came, where it is waited for on a thread.

    Args:
        answer: whose body was not read yet.
        most: bytes it may have.
        seconds: it may take; one piece of it may take the client's own time-out beyond that.

    Raises:
        TooLong: more bytes than that, or later.
    """
    end = time.monotonic() + seconds
    content = bytearray()
    for part in answer.iter_raw():
        content += part
        if len(content) > most:
            raise TooLong(f"an answer of more than {most} bytes")
        if time.monotonic() >= end:
            raise TooLong(f"an answer that takes more than {seconds:g} s")
    return bytes(content)
