"""Telling systemd how a service is doing, as sd_notify(3) does."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*states: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send states such as `READY=1` to the service manager, if one started us.

    Raises:
        OSError: the socket that the service manager named cannot be reached.
    """
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto("\n".join(states).encode(), address)
