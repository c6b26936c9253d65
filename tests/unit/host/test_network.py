"""Addresses and ports: who gets what, and what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ppn.errors import Refusal
from ppn.host.forecast import after, with_in_flight
from ppn.host.lease import Lease, OpenPort
from ppn.host.model import NodeNetwork, Settings
from ppn.host.network import choose_lease, interface_of, lease_wanted, node_network
from ppn.host.policy import plan, refusals
from ppn.host.ports import listening, probe
from ppn.host.spec import SpecInvalid, VmSpec
from tests.unit.host.builders import make_node, make_spec, make_view


def make_network(**fields: object) -> NodeNetwork:
    """The network of a small node: 13 addresses for VMs, 8 ports."""
    usual = {"mesh_address": "10.8.0.2", "vm_range": "10.9.2.0/28"}
    ports = {"port_first": 30000, "port_last": 30007}
    busy = fields.pop("busy", ())
    network = node_network(Settings.model_validate(usual | ports | fields))
    assert network is not None
    return network.model_copy(update={"busy": busy})


def lease(address: str, *hosts: int) -> Lease:
    """A lease with TCP ports that lead from these to 80, 81 and so on."""
    ports = tuple(OpenPort(guest=80 + at, host=host) for at, host in enumerate(hosts))
    return Lease(address=address, ports=ports)


def refused(spec: VmSpec, network: NodeNetwork, *others: Lease) -> Refusal:
    with pytest.raises(Refusal) as found:
        choose_lease(spec, network, others, None)
    return found.value


WISHES = st.lists(
    st.tuples(
        st.integers(1, 65535),
        st.sampled_from(["tcp", "udp"]),
        st.none() | st.integers(30000, 30007),
    ),
    max_size=4,
    unique_by=(lambda wish: wish[:2], lambda wish: wish[1:] if wish[2] else wish),
)


@given(
    st.lists(st.tuples(st.booleans(), WISHES), max_size=16),
    st.sets(st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(30000, 30007)), max_size=6),
)
def test_no_two_vms_ever_hold_the_same(
    vms: list[tuple[bool, list[tuple[int, str, int | None]]]], busy: set[tuple[str, int]]
) -> None:
    """IP-01: whatever is asked, an address and a port have one holder, and none is the node's."""
    network = make_network(busy=tuple(sorted(busy)))
    held: list[Lease] = []
    for at, (_, wishes) in enumerate(vms):
        ports = [{"guest": g, "protocol": p, "host": h} for g, p, h in wishes]
        spec = make_spec(name=f"vm{at}", ports=ports)
        try:
            found = choose_lease(spec, network, held, None)
        except Refusal as refusal:
            assert refusal.code in {"addresses_exhausted", "ports_exhausted", "port_taken"}
            continue
        assert choose_lease(spec, network, held, None) == found
        assert choose_lease(spec, network, held, found) == found
        assert not lease_wanted(spec, found)
        assert [(p.guest, p.protocol) for p in found.ports] == [(g, p) for g, p, _ in wishes]
        held.append(found)
    addresses = [one.address for one in held]
    ports_held = [(port.protocol, port.host) for one in held for port in one.ports]
    assert len(set(addresses)) == len(addresses)
    assert len(set(ports_held)) == len(ports_held)
    assert not set(ports_held) & busy
    hosts = {str(address) for address in IPv4Network(network.range).hosts()} - {network.gateway}
    assert set(addresses) <= hosts
    assert all(30000 <= port <= 30007 for _, port in ports_held)


def test_every_address_is_given_before_none_is_left() -> None:
    """IP-01: all 13 of a /28, then a clean refusal; one given back is to be had again."""
    network = make_network()
    held: list[Lease] = []
    for at in range(13):
        held.append(choose_lease(make_spec(name=f"vm{at}"), network, held, None))
    refusal = refused(make_spec(name="late"), network, *held)
    assert (refusal.code, refusal.wanted, refusal.free) == ("addresses_exhausted", 1, 0)
    again = choose_lease(make_spec(name="late"), network, held[1:], None)
    assert again.address == held[0].address


def test_every_port_is_given_before_none_is_left() -> None:
    network = make_network(busy=(("tcp", 30003),))
    ports = [{"guest": guest} for guest in range(1, 8)]
    held = choose_lease(make_spec(ports=ports), network, [], None)
    assert {port.host for port in held.ports} == {*range(30000, 30008)} - {30003}
    more = {"name": "late", "ports": [{"guest": 80}]}
    assert refused(make_spec(**more), network, held).code == "ports_exhausted"
    # The same number of another protocol is another port.
    udp = make_spec(name="late", ports=[{"guest": 80, "protocol": "udp"}])
    choose_lease(udp, network, [held], None)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"address": "10.9.2.0"}, "address_outside"),
        ({"address": "10.9.2.1"}, "address_outside"),
        ({"address": "10.9.2.15"}, "address_outside"),
        ({"address": "10.9.2.16"}, "address_outside"),
        ({"address": "10.9.1.255"}, "address_outside"),
        ({"address": "10.9.2.5"}, "address_taken"),
        ({"ports": [{"guest": 80, "host": 30001}]}, "port_taken"),
        ({"ports": [{"guest": 80, "host": 30002}]}, "port_taken"),
        ({"ports": [{"guest": 80, "host": 29999}]}, "port_outside"),
        ({"ports": [{"guest": 80, "host": 30008}]}, "port_outside"),
    ],
)
def test_what_cannot_be_had(fields: dict[str, object], code: str) -> None:
    """IP-01: 30001 is another VM's, on 30002 the node itself listens."""
    network = make_network(busy=(("tcp", 30002),))
    refusal = refused(make_spec(**fields), network, lease("10.9.2.5", 30001))
    assert refusal.code == code and refusal.hint and "vm web" in refusal.message


@pytest.mark.parametrize("address", ["10.9.2.2", "10.9.2.14"])
def test_the_first_and_the_last_address(address: str) -> None:
    found = choose_lease(make_spec(address=address), make_network(), [], None)
    assert found.address == address


def test_a_wish_is_never_taken_by_a_port_that_may_be_any() -> None:
    """In whatever order they are named, and whatever the VM held before."""
    network = make_network(port_last=30001)
    spec = make_spec(ports=[{"guest": 80}, {"guest": 81, "host": 30000}])
    found = choose_lease(spec, network, [], None)
    assert [port.host for port in found.ports] == [30001, 30000]
    swapped = make_spec(ports=[{"guest": 81, "host": 30001}, {"guest": 80}])
    with pytest.raises(Refusal, match="port_taken"):
        choose_lease(swapped, network, [], found)


def test_what_a_vm_holds_stays_its_own() -> None:
    """Also where something came to listen on its port meanwhile."""
    held = lease("10.9.2.7", 30004)
    network = make_network(busy=(("tcp", 30004),))
    spec = make_spec(ports=[{"guest": 80}, {"guest": 8080}])
    found = choose_lease(spec, network, [], held)
    assert (found.address, found.ports[0].host) == ("10.9.2.7", 30004)
    assert lease_wanted(spec, held) and not lease_wanted(spec, found)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, True),
        ({"ports": [{"guest": 80}]}, False),
        ({"ports": [{"guest": 80, "host": 30004}]}, False),
        ({"ports": [{"guest": 80, "host": 30005}]}, True),
        ({"ports": [{"guest": 80, "protocol": "udp"}]}, True),
        ({"ports": [{"guest": 80}], "address": "10.9.2.7"}, False),
        ({"ports": [{"guest": 80}], "address": "10.9.2.8"}, True),
    ],
)
def test_when_a_lease_must_change(fields: dict[str, object], wanted: bool) -> None:
    assert lease_wanted(make_spec(**fields), lease("10.9.2.7", 30004)) is wanted


def test_a_vm_made_before_the_node_had_a_network_is_left_alone() -> None:
    assert not lease_wanted(make_spec(), None)
    assert lease_wanted(make_spec(ports=[{"guest": 80}]), None)


def test_ports_change_live_and_an_address_does_not() -> None:
    """One step for ports; another address needs a new seed, and the VM stopped."""
    old = make_spec(ports=[{"guest": 80}])
    view = make_view(old, lease=lease("10.9.2.7", 30004))
    node = make_node(view, network=make_network())
    new = make_spec(ports=[{"guest": 80}, {"guest": 81}])
    assert [refusal.code for refusal in refusals(new, node)] == []
    assert "give vm web its address and ports" in [str(step) for step in plan(new, view)]
    moved = make_spec(ports=[{"guest": 80}], address="10.9.2.9")
    assert [refusal.code for refusal in refusals(moved, node)] == ["vm_running"]
    stopped = make_spec(ports=[{"guest": 80}], address="10.9.2.9", state="stopped")
    steps = [str(step) for step in plan(stopped, view)]
    assert steps.index("give vm web its address and ports") < steps.index(
        "write the seed of vm web"
    )


def test_a_node_without_a_network_refuses_what_it_cannot_give() -> None:
    node = make_node()
    assert [one.code for one in refusals(make_spec(), node)] == []
    for fields in ({"ports": [{"guest": 80}]}, {"address": "10.9.2.5"}):
        spec = make_spec(**fields)
        assert [one.code for one in refusals(spec, node)] == ["network_missing"]


def test_declarations_are_judged_with_those_before_them() -> None:
    """A second VM that wants the first one's port is refused beside the inventory already."""
    node = make_node(network=make_network())
    one = make_spec(name="one", address="10.9.2.5", ports=[{"guest": 80, "host": 30001}])
    node = after(node, one)
    held = node.vm("one")
    assert held is not None and held.lease == lease("10.9.2.5", 30001)
    two = make_spec(name="two", ports=[{"guest": 80, "host": 30001}])
    assert [refusal.code for refusal in refusals(two, node)] == ["port_taken"]
    node = after(node, make_spec(name="one", state="absent"))
    assert [refusal.code for refusal in refusals(two, node)] == []


def test_what_can_no_longer_be_had_does_not_stop_others() -> None:
    """HOST-17: a port that was free when its VM was admitted, and is not any more."""
    node = make_node(network=make_network(busy=(("tcp", 30001),)))
    spec = make_spec(name="one", ports=[{"guest": 80, "host": 30001}])
    view = with_in_flight(node, [spec]).vm("one")
    assert view is not None and view.lease is None


@given(st.text(max_size=8), st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_probe_finds_a_free_place_if_there_is_one(seed: str, count: int, taken: set[int]) -> None:
    found = probe(seed, count, taken.__contains__)
    free = set(range(count)) - taken
    assert (found in free) if free else found is None


@given(st.uuids(version=4))
def test_interface_of_any_identity(uuid: UUID) -> None:
    """The kernel takes 15 characters; the address is locally administered and no group's."""
    interface = interface_of(str(uuid))
    assert len(interface.tap) == 15 and interface.tap.startswith("ppn-")
    first, *rest = (int(part, 16) for part in interface.mac.split(":"))
    assert first & 0b11 == 0b10 and first != 0xFE and len(rest) == 5
    assert interface == interface_of(str(uuid))


def test_interfaces_of_two_vms_differ() -> None:
    taps = {interface_of(str(uuid4())).tap for _ in range(1000)}
    assert len(taps) == 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "10.9.2.256"},
        {"address": "010.9.2.5"},
        {"address": "10.9.2.5\n"},
        {"ports": [{"guest": 0}]},
        {"ports": [{"guest": 65536}]},
        {"ports": [{"guest": 80, "protocol": "sctp"}]},
        {"ports": [{"guest": 80}, {"guest": 80}]},
        {"ports": [{"guest": 80, "host": 30000}, {"guest": 81, "host": 30000}]},
    ],
)
def test_descriptions_that_break_their_own_rules(fields: dict[str, object]) -> None:
    with pytest.raises(SpecInvalid):
        make_spec(**fields)
    make_spec(ports=[{"guest": 53}, {"guest": 53, "protocol": "udp"}])


@pytest.mark.parametrize(
    "fields",
    [
        {"vm_range": "10.9.2.0/30"},
        {"vm_range": "10.9.2.1/24"},
        {"vm_range": "fd00::/64"},
        {"mesh_address": "10.8.0"},
        {"port_first": 30001, "port_last": 30000},
        {"port_first": 80},
        {"port_first": 9000},
    ],
)
def test_settings_that_make_no_network(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(fields)


def test_gateway_is_the_first_address() -> None:
    assert make_network().gateway == str(IPv4Address("10.9.2.1"))
    assert node_network(Settings(vm_range="10.9.2.0/24")) is None


SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0200080A:7531 0100080A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
"""


def test_listeners_are_read_from_the_kernel(tmp_path: Path) -> None:
    """Those that wait for somebody, on any address; not a connection, not another range."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(SOCKETS)
    (tmp_path / "net/udp6").write_text(
        SOCKETS.splitlines()[0]
        + "\n  7: 00000000000000000000000000000000:7532 00000000000000000000000000000000:0000 07"
        + " 00000000:00000000 00:00000000 00000000 0 0 4 2\n"
    )
    assert listening(tmp_path, 30000, 32767) == (("tcp", 30000), ("udp", 30002))
