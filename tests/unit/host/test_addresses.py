"""Which address a VM gets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.addresses import free_address, places

NETWORKS = st.sampled_from(["10.9.2.0/24", "10.9.2.16/28", "10.9.2.64/29", "10.9.2.4/30"])


@given(NETWORKS, st.lists(st.text(max_size=8), max_size=300))
def test_addresses_are_unique_until_the_range_is_exhausted(network: str, vms: list[str]) -> None:
    """IP-01: each VM its own host address, never the gateway's; then a clean refusal."""
    whole = IPv4Network(network)
    hosts = {str(host) for host in list(whole.hosts())[1:]}
    assert places(network) == len(hosts)
    taken: set[str] = set()
    for vm in vms:
        if len(taken) == len(hosts):
            with pytest.raises(Refusal) as refused:
                free_address(network, taken, vm)
            assert refused.value.code == "addresses_exhausted"
            assert (refused.value.wanted, refused.value.free) == (1, 0)
            return
        address = free_address(network, taken, vm)
        assert address in hosts - taken
        taken.add(address)


@pytest.mark.parametrize("network", ["10.9.2.0/31", "10.9.2.0/32"])
def test_range_without_room_for_a_vm(network: str) -> None:
    assert places(network) == 0
    with pytest.raises(Refusal, match="addresses_exhausted"):
        free_address(network, set(), "vm-1")


@given(NETWORKS, st.text(max_size=8))
def test_released_address_is_found_again(network: str, vm: str) -> None:
    """IP-01: the same VM finds the same address; one that is not of the range does not matter."""
    address = free_address(network, set(), vm)
    assert free_address(network, {"192.0.2.1"}, vm) == address
    full = {str(IPv4Address(host)) for host in IPv4Network(network)}
    assert free_address(network, full - {address}, vm + "x") == address


def test_vms_start_at_different_places() -> None:
    """IP-01: so that two controllers do not choose the same address at the same moment."""
    found = {free_address("10.9.0.0/16", set(), f"vm-{number}") for number in range(100)}
    assert len(found) > 90
