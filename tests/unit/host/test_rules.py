"""The rules around VMs: whole, stable, and accepted by nft."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from ppn.host.lease import Lease, OpenPort
from ppn.host.model import NodeNetwork
from ppn.host.network import Guest, interface_of
from ppn.host.rules import no_rules, ruleset
from tests.examples import examples
from tests.unit.host.test_network import make_network

TWO = (
    Guest(
        interface_of("3b5d1f0e-6d0a-4d5c-9f0e-0123456789ab"),
        Lease(
            address="10.9.2.5",
            ports=(
                OpenPort(guest=80, host=30001),
                OpenPort(guest=53, protocol="udp", host=30001),
            ),
        ),
    ),
    Guest(interface_of("1b5d1f0e-6d0a-4d5c-9f0e-0123456789ab"), Lease(address="10.9.2.4")),
)
EXPECTED = """\
table bridge ppn_vm
delete table bridge ppn_vm
table bridge ppn_vm {
	set guests {
		type ifname . ether_addr . ipv4_addr
		elements = { "ppn-1b5d1f0e6d0" . 52:54:1b:5d:1f:0e . 10.9.2.4, \
"ppn-3b5d1f0e6d0" . 52:54:3b:5d:1f:0e . 10.9.2.5 }
	}
	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname != "ppn-*" accept
		iifname . ether saddr . ip saddr @guests accept
		iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip \
@guests accept
		counter drop
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "ppn-*" oifname "ppn-*" counter drop
	}
	chain output {
		type filter hook output priority filter; policy accept;
		oifname != "ppn-*" accept
		ether type arp accept
		ether type ip ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 accept
		counter drop
	}
}
table inet ppn_vm
delete table inet ppn_vm
table inet ppn_vm {
	map ports {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 30001 : 10.9.2.5 . 80, udp . 30001 : 10.9.2.5 . 53 }
	}
	set open {
		type inet_proto . ipv4_addr . inet_service
		elements = { tcp . 10.9.2.5 . 80, udp . 10.9.2.5 . 53 }
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "ppn0" ip daddr 10.8.0.2 dnat ip to meta l4proto . th dport map @ports
	}
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr 10.8.0.2 dnat ip to meta l4proto . th dport map @ports
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname != "ppnvm0" accept
		ct state established,related accept
		ip daddr 10.9.2.1 icmp type echo-request accept
		counter drop
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "ppnvm0" ct state established,related accept
		oifname "ppnvm0" ct state related ct status dnat accept
		oifname "ppnvm0" ct status dnat meta l4proto . ip daddr . th dport @open accept
		iifname "ppnvm0" counter drop
		oifname "ppnvm0" counter drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "ppnvm0" ct status dnat masquerade
	}
}
"""


def nft_accepts(text: str) -> None:
    """Ask nft whether it could load a text, in a network of its own."""
    done = subprocess.run(
        ["unshare", "-rn", "nft", "-c", "-f", "-"],
        input=text,
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_whole_text_of_two_guests() -> None:
    """IP-02, INV-03: a guest speaks for itself alone, and only its open ports lead to it."""
    assert ruleset(make_network(), TWO) == EXPECTED
    assert ruleset(make_network(), reversed(TWO)) == EXPECTED


def test_internet_is_public_addresses_and_nothing_else() -> None:
    """By default there is none; with it, neighbours of the node and the mesh stay out of reach."""
    assert "ip daddr != { 0.0.0.0/8" not in ruleset(make_network(), TWO)
    text = ruleset(make_network(vm_internet=True), TWO)
    assert 'iifname "ppnvm0" oifname != "ppn0" ip daddr != { 0.0.0.0/8, 10.0.0.0/8' in text
    assert "ip saddr 10.9.2.0/28 ip daddr != { 0.0.0.0/8" in text
    nft_accepts(text)


@given(
    st.lists(
        st.builds(
            lambda uuid, address, ports: Guest(
                interface_of(str(uuid)),
                Lease(
                    address=str(address),
                    ports=tuple(
                        OpenPort(guest=guest, protocol=protocol, host=host)
                        for (guest, protocol), host in ports.items()
                    ),
                ),
            ),
            st.uuids(version=4),
            st.ip_addresses(v=4),
            st.dictionaries(
                st.tuples(st.integers(1, 65535), st.sampled_from(["tcp", "udp"])),
                st.integers(1, 65535),
                max_size=3,
            ),
        ),
        max_size=4,
        unique_by=lambda guest: guest.interface.tap,
    )
)
@examples(0.1)
def test_nft_accepts_the_rules_of_any_guests(guests: list[Guest]) -> None:
    hosts = [(port.protocol, port.host) for one in guests for port in one.lease.ports]
    # Two leases never share a host port; nft would refuse that.
    if len(set(hosts)) == len(hosts):
        network: NodeNetwork = make_network()
        nft_accepts(ruleset(network, guests) + ruleset(network, guests))


def test_nothing_can_be_removed_twice() -> None:
    nft_accepts(no_rules() + no_rules())
