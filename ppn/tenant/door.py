"""The proxy's listener: TLS 1.3 with the node's certificate, and so much of each caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from ppn.errors import PpnError
from ppn.log import get_logger
from ppn.pool.tls import TlsFiles, TlsUnusable, Version, open_context, version_of
from ppn.wire.connection import TimedConnection, http_config

BACKLOG = 512
CONNECTIONS = 2048
# Of one address, and of all machines of one tenant: no tenant's take all there are.
CONNECTIONS_OF = {"address": 256, "tenant": 512}
HANDSHAKE_SECONDS = 5.0
HEADER_SECONDS = 5.0
IDLE_SECONDS = 75
TLS_CLOSE_SECONDS = 2.0

# Which of the two, and its name.
Caller = tuple[str, str]

log = get_logger("tenant-proxy")


class DoorBlocked(PpnError):
    """The proxy cannot listen on its address."""

    code = "address_unavailable"


class Line(TimedConnection):
    """One connection of a customer.

    Args:
        config: uvicorn's.
        state: what the connections of this server share.
        callers: how many connections each address and each tenant has.
        tenants: of each customer's machine, by its address.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        callers: Counter[Caller],
        tenants: Mapping[str, str],
    ) -> None:
        super().__init__(config, state, HEADER_SECONDS)
        self.callers = callers
        self.tenants = tenants
        self.counted: tuple[Caller, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count a caller's connections, and end one too many; called by asyncio."""
        super().connection_made(transport)
        source = self.client[0] if self.client else ""
        tenant = self.tenants.get(source)
        self.counted = (("address", source), *((("tenant", tenant),) if tenant else ()))
        self.callers.update(self.counted)
        if any(self.callers[caller] > CONNECTIONS_OF[caller[0]] for caller in self.counted):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out; what its request began goes on; called by asyncio."""
        super().connection_lost(exc)
        self.callers.subtract(self.counted)
        for caller in self.counted:
            if self.callers[caller] <= 0:
                del self.callers[caller]


class Door:
    """Listens for customers.

    Args:
        app: answers them.
        files: what to speak TLS with.
        tenants: of each customer's machine, by its address.

    Raises:
        TlsUnusable: TLS cannot be spoken with the files.
    """

    def __init__(self, app: ASGIApp, files: TlsFiles, tenants: Mapping[str, str]) -> None:
        self._files = files
        self._version: Version = version_of(files)
        self._context = open_context(files)
        self._state = ServerState()
        self._callers: Counter[Caller] = Counter()
        self._tenants = tenants
        self._server: asyncio.Server | None = None
        self._config = http_config(app, idle_seconds=IDLE_SECONDS, at_once=CONNECTIONS)

    async def open(self, address: IPv4Address, port: int) -> int:
        """Listen, on the one address.

        Returns:
            The port.

        Raises:
            DoorBlocked: the address is not there, or the port is taken.
        """
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Line(self._config, self._state, self._callers, self._tenants),
                str(address),
                port,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise DoorBlocked(
                f"cannot listen on {address}:{port}: {error.strerror}",
                hint="see `ip address` and `ss -ltnp`",
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    def reload(self) -> None:
        """Take over a changed certificate; a damaged one changes nothing. No connection ends."""
        try:
            version = version_of(self._files)
            if version == self._version:
                return
            # Judged first: the context in use would be left without a key by one that does not fit.
            open_context(self._files)
            self._context.load_cert_chain(self._files.certificate, self._files.key)
        except (OSError, TlsUnusable) as error:
            log.error("certificate not taken over", error=str(error))
            return
        self._version = version
        log.info("certificate taken over")

    async def close(self, seconds: float) -> None:
        """Listen no more, and wait for the requests under way.

        Args:
            seconds: to wait; what is still under way then is cut.
        """
        if self._server is not None:
            self._server.close()
        lines = [line for line in self._state.connections if isinstance(line, Line)]
        for line in lines:
            line.shutdown()
        if tasks := set(self._state.tasks):
            await asyncio.wait(tasks, timeout=seconds)
        for line in lines:
            line.transport.abort()
