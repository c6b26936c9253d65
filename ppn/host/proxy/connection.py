"""One caller's connection: uvicorn's HTTP, with the caller's identity and a time for a header."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

from uvicorn.config import Config
from uvicorn.server import ServerState

from ppn.host.proxy.api import Caller
from ppn.pool.tls import identity_of
from ppn.wire.connection import TimedConnection


class House(Protocol):
    """What a connection tells of itself."""

    def connection_ended(self, source: str) -> None:
        """A connection is over."""

    def turned_away(self, reason: str, source: str, detail: str = "") -> None:
        """A connection came to no request."""


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


class Connection(TimedConnection):
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
        super().__init__(config, state, header_seconds)
        self.house = house
        self.source = source
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

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the work of a request whose caller is gone; called by asyncio."""
        super().connection_lost(exc)
        if self.caller is not None and self.caller.task is not None:
            self.caller.task.cancel()
        self.house.connection_ended(self.source)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP, and end the connection; called by uvicorn."""
        self.house.turned_away("http_invalid", self.source, msg)
        super().send_400_response(msg)

    def header_is_late(self) -> None:
        """End the connection, and say so."""
        self.house.turned_away("header_slow", self.source)
        super().header_is_late()
