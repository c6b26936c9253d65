"""One node as one controller knows it: its newest heartbeat, and what was decided since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from ppn.errors import Refusal
from ppn.fleet.model import Demand, NodeView, view_of
from ppn.fleet.policy import Passed
from ppn.host.addresses import free_address
from ppn.wire.heartbeat import Heartbeat, VmReport

# Sessions of the agent that are known to be over; older ones are forgotten.
SESSIONS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Reservation:
    """A VM that this controller has placed, until heartbeats speak for it.

    Args:
        number: differs from that of every other decision of this controller.
        vm: its id.
        node: where it goes.
        session: the agent's session it was decided for; the ticket names it.
        demand: what is debited.
        passed: the pass of placement that found the node.
        address: its address in the node's VM network; None when the node has none.
        settled: when the call that makes it ended, in seconds; None while it runs.
        report: the VM as the agent answered; None before.
    """

    number: int
    vm: str
    node: str
    session: str
    demand: Demand
    passed: Passed
    address: str | None
    settled: float | None = None
    report: VmReport | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """A VM that is gone from a node whose heartbeat may still list it.

    Args:
        report: the VM as it was last reported.
        since: when its agent said that nothing is left, in seconds.
        session: of that agent.
    """

    report: VmReport
    since: float
    session: str


@dataclass(frozen=True, slots=True)
class Held:
    """A VM where it is; `stale` when its node has not been heard of lately."""

    node: str
    stale: bool
    report: VmReport


class Node:
    """What a controller knows of a node.

    Args:
        name: in the inventory.
        address: its mesh address; heartbeats from another one are not its own.
    """

    __slots__ = (
        "_retired",
        "address",
        "gone",
        "heard",
        "heartbeat",
        "name",
        "reported",
        "reserved",
    )

    def __init__(self, name: str, address: IPv4Address) -> None:
        self.name = name
        self.address = address
        self.heartbeat: Heartbeat | None = None
        self.heard: float | None = None
        self.reported: Mapping[str, VmReport] = {}
        self.reserved: dict[str, Reservation] = {}
        self.gone: dict[str, Trace] = {}
        self._retired: dict[str, None] = {}

    def check_order(self, heartbeat: Heartbeat, lapsed: float) -> None:
        """Refuse a heartbeat that is older than the newest.

        A session that another one has followed is over. Should they have come in the wrong order,
        it is believed again once the other has been silent since `lapsed`.

        Args:
            heartbeat: what came.
            lapsed: when a node heard last is stale by now, in seconds.

        Raises:
            Refusal: `heartbeat_old`.
        """
        newest = self.heartbeat
        if newest is None or self.heard is None:
            return
        same = heartbeat.session == newest.session
        over = heartbeat.session in self._retired and self.heard >= lapsed
        if over or (same and heartbeat.sequence <= newest.sequence):
            raise Refusal(
                f"heartbeat {heartbeat.sequence} of node {self.name} came after a newer one",
                code="heartbeat_old",
                constraint="order of heartbeats",
                hint="send the newest state only",
            )

    def take(self, heartbeat: Heartbeat, now: float, settled: float) -> None:
        """Make a heartbeat the newest; what it shows or denies for good is no longer kept.

        Args:
            heartbeat: the newest, in order.
            now: seconds.
            settled: a heartbeat that comes now was made after this moment, in seconds.
        """
        if self.heartbeat is not None and self.heartbeat.session != heartbeat.session:
            self._retired.pop(heartbeat.session, None)
            self._retired[self.heartbeat.session] = None
            if len(self._retired) > SESSIONS_KEPT:
                del self._retired[next(iter(self._retired))]
        self.heartbeat = heartbeat
        self.heard = now
        self.reported = {vm.id: vm for vm in heartbeat.vms}
        if self.gone:
            self.gone = {
                vm: trace for vm, trace in self.gone.items() if self._hides(trace, settled)
            }
        if self.reserved:
            self.reserved = {
                vm: one for vm, one in self.reserved.items() if self._stands(one, settled)
            }

    def reserve(self, number: int, vm: str, demand: Demand, passed: Passed) -> Reservation:
        """Debit a VM; the node has been heard and has room for it.

        Raises:
            Refusal: `addresses_exhausted`.
        """
        heartbeat = self._newest()
        address = None
        if heartbeat.network is not None:
            addresses = [report.address for report in self._visible().values()]
            addresses += [one.address for one in self.reserved.values()]
            taken = {address for address in addresses if address is not None}
            address = free_address(heartbeat.network.range, taken, vm)
        session = heartbeat.session
        reservation = Reservation(number, vm, self.name, session, demand, passed, address)
        self.reserved[vm] = reservation
        return reservation

    def holds(self, reservation: Reservation) -> bool:
        """Whether this very decision still stands, and not a later one for the same VM."""
        standing = self.reserved.get(reservation.vm)
        return standing is not None and standing.number == reservation.number

    def settle(self, reservation: Reservation, now: float, report: VmReport | None) -> None:
        """The call that makes a VM has ended; its reservation stands."""
        vm = reservation.vm
        if vm in self.reported and vm not in self.gone:
            del self.reserved[vm]
        else:
            self.reserved[vm] = replace(reservation, settled=now, report=report)

    def forget(self, vm: str, now: float) -> None:
        """Nothing is left of a VM here."""
        self.reserved.pop(vm, None)
        if vm in self.reported:
            self.gone[vm] = Trace(self.reported[vm], now, self._newest().session)

    def held(self) -> dict[str, str]:
        """The owner of each VM that is here or on its way here, by id."""
        owners = {vm: report.owner for vm, report in self._visible().items()}
        for vm, one in self.reserved.items():
            owners.setdefault(vm, one.demand.owner)
        return owners

    def report(self, vm: str) -> VmReport:
        """A VM that `held` has: as reported, else as answered, else as it is to be."""
        if vm in self.reported and vm not in self.gone:
            return self.reported[vm]
        reservation = self.reserved[vm]
        return reservation.report or expected(reservation)

    def view(self) -> NodeView:
        """What may still be placed here; the node has been heard."""
        if not self.reserved and not self.gone:
            return view_of(self._newest())
        visible = self._visible()
        return view_of(
            self._newest(),
            [one.demand for vm, one in self.reserved.items() if vm not in visible],
            [trace.report for trace in self.gone.values()],
        )

    def _visible(self) -> Mapping[str, VmReport]:
        if not self.gone:
            return self.reported
        return {vm: report for vm, report in self.reported.items() if vm not in self.gone}

    def _newest(self) -> Heartbeat:
        if self.heartbeat is None:
            raise Refusal(
                f"node {self.name} has not been heard yet",
                code="node_stale",
                constraint="heartbeat of the node",
                hint="see whether its agent runs and reaches this controller",
            )
        return self.heartbeat

    def _hides(self, trace: Trace, settled: float) -> bool:
        """Whether a trace still stands against the newest heartbeat."""
        listed = self.reported.get(trace.report.id)
        was = trace.report
        return (
            listed is not None
            and (listed.uuid, listed.created) == (was.uuid, was.created)
            and trace.session == self._newest().session
            and trace.since > settled
        )

    def _stands(self, reservation: Reservation, settled: float) -> bool:
        """Whether a reservation is still to be kept beside the newest heartbeat."""
        if reservation.vm in self.reported and reservation.vm not in self.gone:
            # While the call runs it may still fail; then the VM goes away again.
            return reservation.settled is None
        if reservation.session != self._newest().session:
            return False  # the ticket is for a session that is over
        return reservation.settled is None or reservation.settled > settled


def expected(reservation: Reservation) -> VmReport:
    """A VM that is on its way to its node, as far as it is known."""
    demand = reservation.demand
    return VmReport(
        id=reservation.vm,
        owner=demand.owner,
        state="creating",
        image=demand.image,
        label=demand.label,
        vcpus=demand.vcpus,
        memory_mib=demand.memory_mib,
        minimum_mib=demand.memory_mib,
        disk_gib=demand.root_gib,
        address=reservation.address,
    )
