"""uvicorn's HTTP/1.1 connection, with a time for each header and problem bodies of its own."""

from __future__ import annotations

import asyncio

import h11
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ppn.errors import Refusal
from ppn.wire.problems import MEDIA_TYPE, problem_of

MAX_HEADER_BYTES = 16 * 1024


def http_config(app: ASGIApp, *, idle_seconds: int, at_once: int | None = None) -> Config:
    """uvicorn's configuration: HTTP/1.1 alone, no log lines beside ours, nothing from headers.

    Args:
        app: what answers.
        idle_seconds: a connection may wait for its next request.
        at_once: connections; more are answered 503. None for no bound here.
    """
    return Config(
        app,
        http=H11Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=at_once,
        timeout_keep_alive=idle_seconds,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


class TimedConnection(H11Protocol):
    """A connection that ends when a header does not arrive in time.

    Args:
        config: uvicorn's.
        state: what the connections of this server share.
        header_seconds: a header may take, from its first byte.
    """

    def __init__(self, config: Config, state: ServerState, header_seconds: float) -> None:
        super().__init__(config, state, {})
        self.header_seconds = header_seconds
        self.header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first header; called by asyncio after the handshake."""
        super().connection_made(transport)
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        """Read on, for a limited time while a header is not whole; called by asyncio."""
        if self._waits_for_header and self.header_timer is None:
            self._expect_header()
        super().data_received(data)
        if not self._waits_for_header:
            self._header_is_there()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more; called by asyncio."""
        super().connection_lost(exc)
        self._header_is_there()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP, and end the connection; called by uvicorn."""
        if self.conn.our_state is not h11.IDLE and self.conn.our_state is not h11.SEND_RESPONSE:
            self.transport.abort()
            return
        problem = problem_of(
            Refusal(msg, code="http_invalid", constraint="HTTP/1.1", hint="send sound HTTP")
        )
        body = problem.model_dump_json().encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events: list[h11.Event] = [
            h11.Response(status_code=problem.status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def header_is_late(self) -> None:
        """End the connection; called when a header did not arrive in time."""
        self.transport.abort()

    @property
    def _waits_for_header(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_header(self) -> None:
        self.header_timer = self.loop.call_later(self.header_seconds, self.header_is_late)

    def _header_is_there(self) -> None:
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None
