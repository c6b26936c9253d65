"""The node proxy's door: address first, then certificate, then HTTP; all of it bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address

from uvicorn.server import ServerState

from ppn.errors import PpnError
from ppn.host.proxy.api import Api
from ppn.host.proxy.connection import Connection
from ppn.host.proxy.policy import may_connect
from ppn.host.proxy.settings import ProxySettings
from ppn.log import get_logger
from ppn.pool.certificates import CertificateUnusable, is_trusted, read_bundle
from ppn.pool.tls import TlsFiles, TlsUnusable, Version, server_context, version_of
from ppn.wire.connection import http_config

BACKLOG = 512
# When the process has no descriptors left, accepting again at once would only burn the CPU.
PAUSE_SECONDS = 0.1
TLS_CLOSE_SECONDS = 2.0

log = get_logger("node-proxy")


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
        self.config = http_config(api, idle_seconds=api.limits.idle_seconds)
        self.state = ServerState()
        self.version: Version = version_of(files)
        self.context = server_context(files)
        self.trust = read_bundle(files.trust)
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

        context = self.context
        try:
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                caller,
                ssl=context,
                ssl_handshake_timeout=self.limits.handshake_seconds,
                ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
            )
        except OSError as error:
            caller.close()
            self.turned_away("tls_refused", source, _what(error))
            # A connection that was made counts itself out when it is lost.
            if not made or made[0].caller is None:
                self.connection_ended(source)
            return
        # The trust may have changed between the first byte of the handshake and the last.
        if context is not self.context:
            self._end_untrusted(made)

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

        Connections stay, but for those whose caller's authority is trusted no more: they end after
        the request they are at.
        """
        try:
            version = version_of(self.files)
            if version == self.version:
                return
            context, trust = server_context(self.files), read_bundle(self.files.trust)
        except (TlsUnusable, CertificateUnusable) as error:
            log.error("certificate not taken over", error=str(error))
            return
        self.version, self.context, self.trust = version, context, trust
        log.info("certificate taken over", authorities=len(trust))
        self._end_untrusted(self._connections())

    def _end_untrusted(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            if not is_trusted(connection.certificate, self.trust):
                connection.shutdown()

    def _connections(self) -> list[Connection]:
        return [one for one in self.state.connections if isinstance(one, Connection)]

    async def close(self, seconds: float) -> None:
        """Listen no more, and wait for the requests under way.

        Args:
            seconds: to wait; what is still under way then is cut, and the agent finishes it.
        """
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        for connection in self._connections():
            connection.shutdown()
        tasks = {*self.state.tasks, *self.welcomes}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for connection in self._connections():
            connection.transport.abort()


def _what(error: OSError) -> str:
    """What went wrong in a handshake, in the words of the TLS library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    reason = getattr(error, "reason", None)
    return str(reason or error.strerror or type(error).__name__)
