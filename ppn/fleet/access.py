"""Who may ask the controller what, by the mesh address a request comes from."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from ppn.errors import Refusal

HEARTBEATS = "/v1/heartbeats"


@dataclass(frozen=True)
class Access:
    """The addresses that mean something to a controller.

    Args:
        nodes: hypervisors; each may send its own heartbeats.
        callers: who may use everything else.
    """

    nodes: frozenset[IPv4Address]
    callers: frozenset[IPv4Address]


def check_access(access: Access, source: str, path: str) -> None:
    """Let a request through or refuse it.

    Args:
        access: who is who.
        source: the address the request comes from.
        path: what it asks for.

    Raises:
        Refusal: `source_wrong`: that address may not ask that.
    """
    try:
        address = ip_address(source)
    except ValueError:
        address = None
    allowed = access.nodes if path == HEARTBEATS else access.callers
    if address not in allowed:
        raise Refusal(
            f"{source or 'an unknown address'} may not use {path} of this controller",
            code="source_wrong",
            constraint="mesh address of the caller",
            hint="nodes send heartbeats; controllers and tenant proxies of the inventory the rest",
        )
