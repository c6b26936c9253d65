"""The node proxy's door: address first, then certificate, then HTTP; all of it bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from ipaddress import IPv4Address

import structlog
from uvicorn.server import ServerState

from ppn.errors import PpnError
from ppn.host.proxy.api import Api
from ppn.host.proxy.connection import Connection, http_config
from ppn.host.proxy.policy import may_connect
from ppn.host.proxy.settings import ProxySettings
from ppn.pool.tls import TlsFiles, TlsUnusable, Version, server_context, version_of

BACKLOG = 512
# When the process has no descriptors left, accepting again at once would only burn the CPU.
PAUSE_SECONDS = 0.1
TLS_CLOSE_SECONDS = 2.0

log = structlog.get_logger("node-proxy")


class DoorBlocked(PpnError):
    """The proxy cannot listen on its address."""

    code = "address_unavailable"


class Door:
    """Accepts callers.

    Args:
        settings: of this proxy.
        files: what to speak TLS with.
        api: answers requests.

    Raises:
        TlsUnusable: TLS cannot be spoken with the files.
    """

    def __init__(self, settings: ProxySettings, files: TlsFiles, api: Api) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.files = files
        self.api = api
        self.config = http_config(api)
        self.state = ServerState()
        self.version: Version = version_of(files)
        self.context = server_context(files)
        self.callers: Counter[str] = Counter()
        self.welcomes: set[asyncio.Task[None]] = set()
        self.listener: socket.socket | None = None

    def open(self) -> int:
        """Listen, on the one address.

        Returns:
            The port.

        Raises:
            DoorBlocked: the address is not there, or the port is taken.
        """
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = (str(self.settings.listen), self.settings.port)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise DoorBlocked(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror}",
                hint="see `ip address` and `ss -ltnp`",
            ) from error
        self.listener = listener
        return int(listener.getsockname()[1])

    async def accept(self) -> None:
        """Take callers in until cancelled."""
        loop = asyncio.get_running_loop()
        while self.listener is not None:
            try:
                caller, (source, _) = await loop.sock_accept(self.listener)
            except OSError as error:
                log.error("cannot accept", error=error.strerror)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if reason := self._reason_to_drop(source):
                caller.close()
                self.turned_away(reason, source)
                continue
            self.callers[source] += 1
            welcome = loop.create_task(self._welcome(caller, source))
            self.welcomes.add(welcome)
            welcome.add_done_callback(self.welcomes.discard)

    def _reason_to_drop(self, source: str) -> str:
        """Why a connection ends before a byte is read (NP-02); empty when it does not."""
        if not may_connect(IPv4Address(source), self.settings.allowed):
            return "ringfence"
        if self.callers.total() >= self.limits.connections:
            return "connections_exhausted"
        if self.callers[source] >= self.limits.connections_of_one:
            return "connections_of_one_exhausted"
        return ""

    async def _welcome(self, caller: socket.socket, source: str) -> None:
        """See a caller's certificate, then let it speak HTTP (NP-01)."""
        made: list[Connection] = []

        def protocol() -> Connection:
            made.append(
                Connection(self.config, self.state, self, source, self.limits.header_seconds)
            )
            return made[0]

        try:
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                caller,
                ssl=self.context,
                ssl_handshake_timeout=self.limits.handshake_seconds,
                ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
            )
        except OSError as error:
            caller.close()
            self.turned_away("tls_refused", source, _what(error))
            # A connection that was made counts itself out when it is lost.
            if not made or made[0].caller is None:
                self.connection_ended(source)

    def connection_ended(self, source: str) -> None:
        """Count a caller out."""
        self.callers[source] -= 1
        if self.callers[source] <= 0:
            del self.callers[source]

    def turned_away(self, reason: str, source: str, detail: str = "") -> None:
        """Note in the audit log what came to no request (NP-03)."""
        self.api.audit.turned_away(reason, source, time.monotonic(), detail)

    def reload(self) -> None:
        """Take over a changed certificate or trust; a damaged one changes nothing.

        Connections stay when the certificate is another. When the trust is, each ends after the
        request it is at, for its caller's authority may be gone.
        """
        try:
            version = version_of(self.files)
            if version == self.version:
                return
            context = server_context(self.files)
        except TlsUnusable as error:
            log.error("certificate not taken over", error=str(error))
            return
        trust_changed = version.trust != self.version.trust
        self.version, self.context = version, context
        log.info("certificate taken over", trust_changed=trust_changed)
        if trust_changed:
            self.end_connections()

    def end_connections(self) -> None:
        """End every connection after the request it is at."""
        for connection in list(self.state.connections):
            connection.shutdown()

    async def close(self, seconds: float) -> None:
        """Listen no more, and wait for the requests under way.

        Args:
            seconds: to wait; what is still under way then is cut, and the agent finishes it.
        """
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.end_connections()
        tasks = {*self.state.tasks, *self.welcomes}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for connection in list(self.state.connections):
            connection.transport.abort()


def _what(error: OSError) -> str:
    """What went wrong in a handshake, in the words of the TLS library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    reason = getattr(error, "reason", None)
    return str(reason or error.strerror or type(error).__name__)
