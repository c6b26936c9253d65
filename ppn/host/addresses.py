"""Which address a VM gets of its node's VM network: pure, for nodes and controllers (IP-01).

There is no database of addresses to lose: what is taken is what the VMs of the node hold, and what
has just been given away.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from ppn.errors import Refusal
from ppn.host.ports import probe

# The network's own address, the gateway's and the broadcast are no VM's.
FIRST_PLACE = 2
NOBODYS = 3


@lru_cache(maxsize=65536)
def places(network: str) -> int:
    """How many VMs a network has addresses for."""
    return max(IPv4Network(network).num_addresses - NOBODYS, 0)


@lru_cache(maxsize=65536)
def first_address(network: str) -> int:
    """The first address a VM of a network may have."""
    return int(IPv4Network(network).network_address) + FIRST_PLACE


def free_address(network: str, taken: Set[str], vm: str) -> str:
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
    first = first_address(network)
    place = probe(vm, places(network), lambda place: str(IPv4Address(first + place)) in taken)
    if place is None:
        raise Refusal(
            f"vm {vm}: VM network {network} has no free address",
            code="addresses_exhausted",
            constraint="addresses of the VM network",
            wanted=1,
            free=0,
            unit="address",
            hint="destroy a VM there, give the node a larger vm_range, or choose another node",
        )
    return str(IPv4Address(first + place))
