"""Opens one TCP connection for ssh and hands it over (`ProxyUseFdpass`). Runs as a script."""

from __future__ import annotations

import socket
import sys

CONNECT_SECONDS = 30


def main() -> None:
    """Connect to HOST PORT and pass the socket through standard output."""
    host, port = sys.argv[1:]
    try:
        connection = socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS)
    except OSError as error:
        sys.exit(f"cannot reach {host} port {port}: {error}")
    connection.setblocking(True)
    with socket.socket(fileno=1) as ssh:
        socket.send_fds(ssh, [b"\0"], [connection.fileno()])


if __name__ == "__main__":
    main()
