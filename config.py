"""pyinfra's own settings for this checkout; pyinfra reads this file from the working folder."""

from __future__ import annotations

import socket

from pyinfra import config
from pyinfra.api.arguments import all_argument_meta
from pyinfra.connectors.ssh import SSHConnector

config.REQUIRE_PYINFRA_VERSION = "==3.10.*"

# pyinfra waits for ever: for a command, and for a node that has gone silent.
COMMAND_SECONDS = 1800
KEEPALIVE_SECONDS = 10
SILENCE_SECONDS = 60

all_argument_meta["_timeout"].default = lambda _: COMMAND_SECONDS

_connect = SSHConnector._connect


def _connect_and_tune(connector: SSHConnector) -> None:
    """Connect, then bound the connection's silence and switch Nagle's algorithm off.

    Nagle's algorithm costs some 40 ms for each remote command. A node that acknowledges nothing for
    `SILENCE_SECONDS` fails, instead of holding the whole run.
    """
    _connect(connector)
    transport = connector.client.get_transport() if connector.client is not None else None
    if transport is not None and isinstance(transport.sock, socket.socket):
        transport.set_keepalive(KEEPALIVE_SECONDS)
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000
        )


# pyinfra has no hook between connecting and the first command, hence the replaced method.
if SSHConnector._connect.__name__ != "_connect_and_tune":
    SSHConnector._connect = _connect_and_tune  # type: ignore[method-assign,assignment]
