"""pyinfra's own settings for this checkout; pyinfra reads this file from the working folder."""

from __future__ import annotations

import socket

from pyinfra import config
from pyinfra.connectors.ssh import SSHConnector

config.REQUIRE_PYINFRA_VERSION = "==3.10.*"

_connect = SSHConnector._connect


def _connect_without_delay(connector: SSHConnector) -> None:
    """Connect, then switch Nagle's algorithm off: it costs some 40 ms for each remote command."""
    _connect(connector)
    transport = connector.client.get_transport() if connector.client is not None else None
    if transport is not None and isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# pyinfra has no hook between connecting and the first command, hence the replaced method.
if SSHConnector._connect.__name__ != "_connect_without_delay":
    SSHConnector._connect = _connect_without_delay  # type: ignore[method-assign,assignment]
