"""Reading another service's answer, and no more of it than there should be."""

from __future__ import annotations

import httpx

from ppn.errors import PpnError


class TooLong(PpnError):
    """An answer that is longer than any sound one."""

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
