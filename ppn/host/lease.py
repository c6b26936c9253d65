"""A VM's place in its node's network, as its sidecar keeps it (IP-01)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ppn.host.spec import ADDRESS_PATTERN, Protocol


class OpenPort(BaseModel):
    """A guest's port, and the port of the node's mesh address that leads to it.

    Args:
        guest: destination port in the guest.
        protocol: of the transport layer.
        host: port of the node, held for the VM's life.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    guest: int = Field(ge=1, le=65535)
    protocol: Protocol = "tcp"
    host: int = Field(ge=1, le=65535)


class Lease(BaseModel):
    """What a VM holds of its node's network: one address, and the ports that lead to it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    address: str = Field(pattern=ADDRESS_PATTERN)
    # JSON has an array where this has a tuple; the parts stay strict.
    ports: Annotated[tuple[OpenPort, ...], Field(strict=False)] = ()
