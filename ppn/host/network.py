"""The network of a node's VMs as data: addresses, interfaces, and who holds what (IP-01, IP-02)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from ppn.errors import Refusal
from ppn.host.addresses import FIRST_PLACE, free_address
from ppn.host.lease import Lease
from ppn.host.model import NodeNetwork, NodeState, Settings, VmView
from ppn.host.ports import Busy, choose_ports
from ppn.host.spec import VmSpec

# In front of every tap's name: the rules know a guest's packets by it.
TAP_PREFIX = "ppn-"


@dataclass(frozen=True)
class Interface:
    """A VM's network interface.

    Args:
        mac: what the guest sees; locally administered, the same for the VM's whole life.
        tap: its other end on the node, 15 characters.
    """

    mac: str
    tap: str


@dataclass(frozen=True)
class Guest:
    """A VM in the network of its node."""

    interface: Interface
    lease: Lease


def interface_of(uuid: str) -> Interface:
    """The interface of a VM by its identity.

    A version 4 UUID is random, so 32 bits tell the VMs of one node apart, and 44 their taps.
    """
    digits = uuid.replace("-", "")
    mac = ":".join(("52", "54", *(digits[at : at + 2] for at in range(0, 8, 2))))
    return Interface(mac, TAP_PREFIX + digits[:11])


def node_network(settings: Settings, busy: tuple[Busy, ...] = ()) -> NodeNetwork | None:
    """The network of a node's VMs; None when the node has none.

    Args:
        settings: the node's own.
        busy: ports on which something of the node itself listens.
    """
    if settings.vm_range is None or settings.mesh_address is None:
        return None
    return NodeNetwork(
        range=settings.vm_range,
        gateway=str(IPv4Network(settings.vm_range)[1]),
        mesh_address=settings.mesh_address,
        mesh_interface=settings.mesh_interface,
        first_port=settings.port_first,
        last_port=settings.port_last,
        internet=settings.vm_internet,
        busy=busy,
    )


def lease_wanted(spec: VmSpec, lease: Lease | None) -> bool:
    """Whether a VM that exists asks for another address or other ports than it has."""
    if lease is None:
        return spec.address is not None or bool(spec.ports)
    held = {(port.protocol, port.guest): port.host for port in lease.ports}
    asked = {(port.protocol, port.guest): port.host for port in spec.ports}
    return (
        spec.address not in (None, lease.address)
        or held.keys() != asked.keys()
        or any(host not in (None, held[key]) for key, host in asked.items())
    )


def choose_lease(
    spec: VmSpec, network: NodeNetwork, others: Iterable[Lease], own: Lease | None
) -> Lease:
    """What a VM gets of its node's network.

    The same input gives the same answer, and what the VM holds and still wants is kept.

    Args:
        spec: the VM as it shall be.
        network: the node's.
        others: what the node's other VMs hold.
        own: what the VM itself holds; None for nothing yet.

    Raises:
        Refusal: `address_outside`, `address_taken`, `addresses_exhausted`, `port_outside`,
            `port_taken` or `ports_exhausted`.
    """
    leases = tuple(others)
    address = _address(spec, network, {lease.address for lease in leases}, own)
    bounds = network.first_port, network.last_port
    held = own if own is not None else Lease(address=address)
    return Lease(address=address, ports=choose_ports(spec, *bounds, network.busy, leases, held))


def network_refusals(spec: VmSpec, node: NodeState, actual: VmView | None) -> Iterator[Refusal]:
    """Why the node's network cannot give a VM what it asks for."""
    own = actual.lease if actual is not None else None
    new = actual is None
    if not (lease_wanted(spec, own) or (new and node.network is not None)):
        return
    if node.network is None:
        yield Refusal(
            f"vm {spec.name}: the node has no network for VMs",
            code="network_missing",
            constraint="VM network",
            hint="give the node a vm_range in the inventory, or leave address and ports out",
        )
        return
    moves = own is None or spec.address not in (None, own.address)
    if actual is not None and actual.state == "running" and spec.state == "running" and moves:
        yield Refusal(
            f"vm {spec.name}: its address cannot change while it runs",
            code="vm_running",
            constraint="VM address",
            hint="apply it once with state stopped, then with state running",
        )
    others = [vm.lease for vm in node.vms if vm.name != spec.name and vm.lease is not None]
    try:
        choose_lease(spec, node.network, others, own)
    except Refusal as refusal:
        yield refusal


def _address(spec: VmSpec, network: NodeNetwork, taken: set[str], own: Lease | None) -> str:
    space = IPv4Network(network.range)
    if spec.address is not None:
        _check(spec, IPv4Address(spec.address), space, taken)
        return spec.address
    if own is not None:
        return own.address
    return free_address(network.range, taken, spec.name)


def _check(spec: VmSpec, address: IPv4Address, space: IPv4Network, taken: set[str]) -> None:
    inside = FIRST_PLACE <= int(address) - int(space[0]) < space.num_addresses - 1
    if not inside:
        raise Refusal(
            f"vm {spec.name}: {address} is no address for VMs of {space}",
            code="address_outside",
            constraint="the node's VM network",
            hint=f"leave it out, or name one from {space[FIRST_PLACE]} to {space[-2]}",
        )
    if str(address) in taken:
        raise Refusal(
            f"vm {spec.name}: {address} is another VM's address",
            code="address_taken",
            constraint="VM address",
            hint="leave it out, or name another one",
        )
