"""Ports of the node that lead to guests: which are free, and which a guest gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from ppn.errors import Refusal
from ppn.host.lease import Lease, OpenPort
from ppn.host.spec import Port, Protocol, VmSpec

# A port of the node with its protocol.
Busy = tuple[Protocol, int]

# The kernel's lists of sockets, and the state (hex) of those that wait for somebody to come.
SOCKET_LISTS: tuple[tuple[str, Protocol, str], ...] = (
    ("tcp", "tcp", "0A"),
    ("tcp6", "tcp", "0A"),
    ("udp", "udp", "07"),
    ("udp6", "udp", "07"),
)


def listening(procfs: Path, first: int, last: int) -> tuple[Busy, ...]:
    """The ports of a range on which something of the node itself listens, on whatever address.

    A listener on another address than the mesh's counts too: sending its port elsewhere for one
    address of several is a surprise nobody needs.

    Args:
        procfs: the kernel's view of processes.
        first, last: the range, both ends included.
    """
    found = {
        (protocol, port)
        for name, protocol, waiting in SOCKET_LISTS
        for port in _local_ports(procfs / "net" / name, waiting)
        if first <= port <= last
    }
    return tuple(sorted(found))


def _local_ports(sockets: Path, waiting: str) -> Iterator[int]:
    try:
        lines = sockets.read_text().splitlines()[1:]
    except FileNotFoundError:
        # A kernel without IPv6 has no list of its sockets.
        return
    for line in lines:
        _, local, _, state, *_ = line.split()
        if state == waiting:
            yield int(local.rpartition(":")[2], 16)


def probe(seed: str, count: int, taken: Callable[[int], bool]) -> int | None:
    """The first free place of a range, from a start that the seed decides.

    The same seed finds the same place again while it is free, and a place just given up is not
    at once the next one's: who still knows it as another's does not end up there.

    Args:
        seed: whom the place is for.
        count: how many places there are, from 0.
        taken: whether a place is not to be had.
    """
    if count < 1:
        return None
    start = int.from_bytes(sha256(seed.encode()).digest()[:8], "big")
    places = ((start + step) % count for step in range(count))
    return next((place for place in places if not taken(place)), None)


def choose_ports(
    spec: VmSpec, first: int, last: int, busy: Iterable[Busy], others: Iterable[Lease], own: Lease
) -> tuple[OpenPort, ...]:
    """The node's ports that lead to a VM.

    A port it has already is kept, whatever else came to listen there.

    Args:
        spec: the VM as it shall be.
        first, last: the range of the node's ports, both ends included.
        busy: ports on which something of the node itself listens.
        others: what the node's other VMs hold.
        own: what the VM itself holds.

    Raises:
        Refusal: `port_outside`, `port_taken` or `ports_exhausted`.
    """
    kept = {(port.protocol, port.guest): port.host for port in own.ports}
    taken = {(port.protocol, port.host) for lease in others for port in lease.ports}
    chosen: dict[Port, int] = {}
    for port in spec.ports:
        host = kept.get((port.protocol, port.guest))
        if host is not None and port.host in (None, host):
            chosen[port] = host
    taken |= {(port.protocol, host) for port, host in chosen.items()} | set(busy)
    # Wishes before what may be anywhere.
    for port in sorted(spec.ports, key=lambda port: port.host is None):
        if port not in chosen:
            chosen[port] = _find(spec, port, (first, last), taken)
            taken.add((port.protocol, chosen[port]))
    return tuple(
        OpenPort(guest=port.guest, protocol=port.protocol, host=chosen[port]) for port in spec.ports
    )


def _find(spec: VmSpec, port: Port, bounds: tuple[int, int], taken: set[Busy]) -> int:
    if port.host is None:
        return _pick(spec, port, bounds, taken)
    _check(spec, port, port.host, bounds, taken)
    return port.host


def _check(spec: VmSpec, port: Port, host: int, bounds: tuple[int, int], taken: set[Busy]) -> None:
    if not bounds[0] <= host <= bounds[1]:
        raise Refusal(
            f"vm {spec.name}: host port {host} is not one of {bounds[0]} to {bounds[1]}",
            code="port_outside",
            constraint="the node's ports for guests",
            hint="leave it out, name one of the range, or widen the range in the inventory",
        )
    if (port.protocol, host) in taken:
        raise Refusal(
            f"vm {spec.name}: host port {host}/{port.protocol} is taken",
            code="port_taken",
            constraint="host port",
            hint="leave it out, name another one, or end what holds it",
        )


def _pick(spec: VmSpec, port: Port, bounds: tuple[int, int], taken: set[Busy]) -> int:
    first, last = bounds
    seed = f"{spec.name}/{port.protocol}/{port.guest}"
    place = probe(seed, last - first + 1, lambda place: (port.protocol, first + place) in taken)
    if place is None:
        raise Refusal(
            f"vm {spec.name}: no host port is left for port {port.guest}/{port.protocol}",
            code="ports_exhausted",
            constraint="the node's ports for guests",
            wanted=1,
            free=0,
            unit="ports",
            hint="choose another node, or widen the range in the inventory",
        )
    return first + place
