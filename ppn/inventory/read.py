"""Single values of an inventory, read or found wanting."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_address

NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@._/-]{0,252}")
ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})")


def endpoint_host(value: object) -> str | None:
    """The host of a text of the form `host:port`, or `None` when it is none."""
    match = ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if match is None or not is_port(int(match[3])) or not _is_bracketed_right(match[1]):
        return None
    return match[1]


def read_address(value: object) -> IPv4Address | None:
    """A text as an IPv4 address, or `None` when it is none."""
    try:
        return IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def read_network(value: object) -> IPv4Network | None:
    """A text as an IPv4 network, or `None` when it is none."""
    try:
        return IPv4Network(value) if isinstance(value, str) else None
    except ValueError:
        return None


def is_port(value: object) -> bool:
    """Whether a value is the number of a port."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _is_bracketed_right(host: str) -> bool:
    """Whether a host in brackets is an IPv6 address; any other is taken as it is."""
    if not host.startswith("["):
        return True
    try:
        return ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False
