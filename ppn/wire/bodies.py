"""Request bodies, bounded in size, in time, and in what those under way take of memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import Message, Receive

from ppn.errors import Refusal

BODY_SECONDS = 10.0


class BodyRefused(Refusal):
    """A body over the bounds."""


class Bodies:
    """The bodies of the requests under way; so many bytes of each caller, and of all.

    Args:
        longest: bytes one body may have.
        of_one: bytes that one caller's bodies may have together.
        of_all: bytes that all bodies may have together.
    """

    def __init__(self, longest: int, of_one: int, of_all: int) -> None:
        self._longest = longest
        self._of_one = of_one
        self._of_all = of_all
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes of all bodies under way."""
        return self._held.total()

    @asynccontextmanager
    async def read(self, caller: str, receive: Receive) -> AsyncIterator[Receive]:
        """Read a request's body, and count it to the end of the block.

        Args:
            caller: whose request it is.
            receive: with nothing of the body read.

        Returns:
            A receiver that gives the whole body out.

        Raises:
            BodyRefused: too long or too slow; `too_many_at_once`.
        """
        held = 0

        def count(size: int) -> None:
            nonlocal held
            if self._held[caller] + size > self._of_one or self.held + size > self._of_all:
                raise BodyRefused(
                    "too much is being sent at once",
                    code="too_many_at_once",
                    constraint="bytes of bodies at once",
                    hint="ask again once some requests are answered",
                )
            self._held[caller] += size
            held += size

        try:
            yield await whole_body(receive, self._longest, count)
        finally:
            self._held[caller] -= held
            if not self._held[caller]:
                del self._held[caller]


async def whole_body(receive: Receive, longest: int, count: Callable[[int], None]) -> Receive:
    """Read a request's body, and return a receiver that gives it out.

    Args:
        receive: with nothing of the body read.
        longest: bytes it may have.
        count: told of the bytes that came, before they are kept.

    Raises:
        BodyRefused: too long, or too slow.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return _replayed(message, receive)
                part = message.get("body", b"")
                if len(body) + len(part) > longest:
                    raise _too_long(len(body) + len(part), longest)
                count(len(part))
                body += part
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise BodyRefused(
            f"the body did not arrive within {BODY_SECONDS:g} s",
            code="body_late",
            constraint="seconds for a body",
            hint="send it faster",
        ) from error
    return _replayed({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _too_long(wanted: int, longest: int) -> BodyRefused:
    return BodyRefused(
        "the body is too long",
        code="body_too_long",
        constraint="bytes of a body",
        wanted=wanted,
        free=longest,
        unit="byte",
        hint="send less",
    )


def _replayed(first: Message, receive: Receive) -> Receive:
    """A receiver that gives one message first, and then what comes."""
    messages = [first]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
