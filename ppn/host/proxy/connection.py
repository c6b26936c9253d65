"""One caller's connection: uvicorn's HTTP, with the caller's identity and a time for a header."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ppn.errors import Refusal
from ppn.host.proxy.api import Api, Caller
from ppn.pool.tls import identity_of
from ppn.wire.problems import MEDIA_TYPE, problem_of

MAX_HEADER_BYTES = 16 * 1024


class House(Protocol):
    """What a connection tells of itself."""

    def connection_ended(self, source: str) -> None:
        """A connection is over."""

    def turned_away(self, reason: str, source: str, detail: str = "") -> None:
        """A connection came to no request."""


def http_config(api: Api) -> Config:
    """uvicorn's configuration: HTTP/1.1 alone, no log lines beside ours, nothing from headers."""
    return Config(
        api,
        http=H11Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=api.limits.idle_seconds,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


class Gathering(asyncio.Transport):
    """Sends what is written in one turn of the loop together: head and body are one packet.

    Args:
        transport: what it goes out through.
        loop: that turns.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.transport = transport
        self.loop = loop
        self.parts: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep data until the loop turns."""
        if not self.parts:
            self.loop.call_soon(self.flush)
        self.parts.append(data)

    def flush(self) -> None:
        """Send what was kept."""
        if self.parts:
            self.transport.write(b"".join(self.parts))
            self.parts.clear()

    def close(self) -> None:
        """Send what was kept, then close."""
        self.flush()
        self.transport.close()

    def abort(self) -> None:
        """Close at once, with nothing sent."""
        self.parts.clear()
        self.transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self.transport.is_closing()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self.transport.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """What is known of the connection."""
        return self.transport.get_extra_info(name, default)


class Connection(H11Protocol):
    """A connection whose caller has shown its certificate.

    Args:
        config: uvicorn's.
        state: what the connections of this server share.
        house: hears of its end.
        source: the caller's address.
        header_seconds: a header may take, from its first byte.
    """

    def __init__(
        self, config: Config, state: ServerState, house: House, source: str, header_seconds: float
    ) -> None:
        super().__init__(config, state, {})
        self.house = house
        self.source = source
        self.header_seconds = header_seconds
        self.header_timer: asyncio.TimerHandle | None = None
        self.caller: Caller | None = None
        self.certificate = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note whom the certificate names; called by asyncio after the handshake."""
        super().connection_made(Gathering(transport, self.loop))
        shown: ssl.SSLObject = transport.get_extra_info("ssl_object")
        self.certificate = shown.getpeercert(binary_form=True) or b""
        identity = identity_of(shown.getpeercert() or {})
        self.caller = Caller(identity, self.source, transport.abort)
        self.app_state = {"caller": self.caller}
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        """Read on, for a limited time while a header is not whole; called by asyncio."""
        if self._waits_for_header and self.header_timer is None:
            self._expect_header()
        super().data_received(data)
        if not self._waits_for_header:
            self._header_is_there()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the work of a request whose caller is gone; called by asyncio."""
        super().connection_lost(exc)
        self._header_is_there()
        if self.caller is not None and self.caller.task is not None:
            self.caller.task.cancel()
        self.house.connection_ended(self.source)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP, and end the connection; called by uvicorn."""
        self.house.turned_away("http_invalid", self.source, msg)
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

    @property
    def _waits_for_header(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_header(self) -> None:
        self.header_timer = self.loop.call_later(self.header_seconds, self._header_is_late)

    def _header_is_there(self) -> None:
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None

    def _header_is_late(self) -> None:
        self.house.turned_away("header_slow", self.source)
        self.transport.abort()
