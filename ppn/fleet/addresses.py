"""Which address a VM gets: pure, over the VM network of the node it goes to (IP-01).

There is no database of addresses to lose: what is taken is what the nodes report, and what this
controller has just given away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from ppn.errors import Refusal

# The network's own address, the gateway (its first host) and the broadcast address.
NOT_FOR_VMS = 3


@lru_cache(maxsize=65536)
def places(network: str) -> int:
    """How many VMs a network has addresses for."""
    return max(IPv4Network(network).num_addresses - NOT_FOR_VMS, 0)


def next_address(network: str, taken: Set[str], vm: str) -> str:
    """The first free address for a VM, counted from a place its id gives.

    Two controllers that place at the same moment so rarely choose the same address, the same VM
    gets the same address again, and one just released is not the next to be given away.

    Args:
        network: the node's VM network, for example `10.9.2.0/24`.
        taken: addresses that VMs of the node have, or are about to have.
        vm: the id of the VM.

    Raises:
        Refusal: `addresses_exhausted`.
    """
    count = places(network)
    first = int(IPv4Network(network).network_address) + NOT_FOR_VMS - 1
    start = int.from_bytes(hashlib.sha256(vm.encode()).digest()[:8]) % max(count, 1)
    for step in range(min(count, len(taken) + 1)):
        address = str(IPv4Address(first + (start + step) % count))
        if address not in taken:
            return address
    raise Refusal(
        f"vm {vm}: VM network {network} has no free address",
        code="addresses_exhausted",
        constraint="addresses of the VM network",
        wanted=1,
        free=0,
        unit="address",
        hint="destroy a VM there, give the node a larger vm_range, or choose another node",
    )
