"""A controller around the production registry: calls, retries, time-outs, idempotency.

It keeps beside the registry what it has asked of whom, and compares the registry with that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import NamedTuple

from ppn.errors import Refusal
from ppn.fleet.model import MARGIN_MIB, Demand, NodeView
from ppn.fleet.node import Reservation
from ppn.fleet.registry import SETTLE_SECONDS, Registry
from ppn.fleet.settings import STALE_SECONDS
from ppn.wire.heartbeat import Heartbeat, VmReport
from ppn.wire.problems import NoCapacity, NodeRefusal

CALL_SECONDS = 15.0
# Refusals after which the VM may be there, made by another request: nobody else is asked.
THERE = frozenset({"vm_busy", "vm_exists"})


@dataclass(slots=True)
class Call:
    """A VM this controller has asked a node for, as the registry should count it.

    Args:
        reservation: what was decided.
        begun: when, on the controller's clock.
        ended: when the call ended without a refusal; None while it runs.
    """

    reservation: Reservation
    begun: float
    ended: float | None = None


class Beat(NamedTuple):
    """The newest heartbeat of a node, when it came, and the VMs it lists by id."""

    content: Heartbeat
    at: float
    listed: dict[str, VmReport]


@dataclass(slots=True)
class Controller:
    """One controller.

    Args:
        addresses: the inventory's mesh addresses by node.
        now: the time on its own clock.
        send: takes a spawn to a node.
        says: takes what a client is told: the VM's id and `running`, `refused` or `unknown`.
    """

    addresses: dict[str, IPv4Address]
    now: float
    send: Callable[[Reservation], None]
    says: Callable[[str, str], None]
    registry: Registry = field(init=False)
    beats: dict[str, Beat] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    gone: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: dict[str, dict[str, NodeRefusal]] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.registry = Registry(self.addresses, self.now)

    def hear(self, beat: Heartbeat) -> None:
        """Take a heartbeat, and check that what it changed is as it must be."""
        try:
            self.registry.hear(beat, self.addresses[beat.node], self.now)
        except Refusal as refusal:
            assert refusal.code == "heartbeat_old", refusal
            return
        self._check_order(beat)
        listed = {vm.id: vm for vm in beat.vms}
        self.beats[beat.node] = Beat(beat, self.now, listed)
        for vm, call in list(self.calls.items()):
            if call.reservation.node == beat.node and self._is_over(call, beat, listed):
                del self.calls[vm]
        for vm, node in list(self.gone):
            if node == beat.node and (vm not in listed or listed[vm].uuid != self.gone[vm, node]):
                del self.gone[vm, node]
        self.check(beat.node)

    def create(self, vm: str, demand: Demand) -> None:
        """Place a VM and ask the node for it."""
        self.registry.expire(self.now)
        views = list(self.registry.index.views().values())
        heard = {name for name, beat in self.beats.items() if self.now - beat.at <= STALE_SECONDS}
        assert {view.name for view in views} == heard, "candidates are those heard lately"
        refused = self.refused.setdefault(vm, {})
        for name, beat in self.beats.items():
            known = vm in beat.listed and (vm, name) not in self.gone
            assert not known or self.registry.find(vm, self.now), f"{vm} on {name} is forgotten"
        try:
            reservation = self.registry.reserve(vm, demand, self.now, excluded=refused)
        except NoCapacity as refusal:
            assert not any(fits(demand, view) for view in views if view.name not in refused)
            assert len(refusal.nodes) == len(self.addresses)
            self.says(vm, "refused")
            return
        self._check_choice(reservation, [view for view in views if view.name not in refused])
        self._ask([reservation])

    def create_all(self, wanted: dict[str, Demand]) -> None:
        """Place a batch, all or nothing, and ask the nodes for its VMs."""
        self.registry.expire(self.now)
        before = dict(self.registry.index.views())
        try:
            found = self.registry.reserve_all(wanted, self.now)
        except NoCapacity:
            after = dict(self.registry.index.views())
            assert after == before, "a refused batch left something"
            for vm in wanted:
                self.says(vm, "refused")
            return
        self._ask([one for one in found.values() if isinstance(one, Reservation)])

    def answered(self, reservation: Reservation, code: str) -> None:
        """The answer of a node to a spawn; `running` or the code of its refusal."""
        vm, node = reservation.vm, reservation.node
        call = self.calls.get(vm)
        if call is None or call.reservation.number != reservation.number:
            # The decision does not stand any more; the registry must not mind.
            self.registry.release(reservation)
            self.registry.settle(reservation, self.now)
            return
        if call.ended is not None:
            return
        if code == "running" or code in THERE:
            self._end(vm, call)
            self.says(vm, "running" if code == "running" else "unknown")
            return
        del self.calls[vm]
        self.registry.release(reservation)
        self.check(node)
        self.refused[vm][node] = NodeRefusal(node=node, code=code, message=code)
        if self.registry.find(vm, self.now):
            self.says(vm, "unknown")
        else:
            self.create(vm, reservation.demand)

    def time_out(self) -> None:
        """End calls that have taken too long; what became of them heartbeats will tell."""
        for vm, call in list(self.calls.items()):
            if call.ended is None and self.now - call.begun >= CALL_SECONDS:
                self._end(vm, call)
                self.says(vm, "unknown")

    def destroyed(self, vm: str, node: str) -> None:
        """A node says that nothing is left of a VM."""
        self.calls.pop(vm, None)
        beat = self.beats.get(node)
        report = beat.listed.get(vm) if beat else None
        if report is not None and report.uuid is not None:
            self.gone[vm, node] = report.uuid
        self.registry.forget(vm, node, self.now)
        self.check(node)

    def check(self, name: str) -> None:
        """Nothing given away is offered again, and nothing is kept back for ever."""
        if name not in self.beats:
            return
        view = self.registry.view(self.registry.nodes[name])
        assert view is not None
        beat, _, listed = self.beats[name]
        vcpus = beat.pool.vcpus - beat.pool.vcpus_allocated
        memory = beat.pool.startable_mib - MARGIN_MIB
        disk = beat.disk.free_mib - beat.disk.promised_mib
        for vm, call in self.calls.items():
            one = call.reservation
            if one.node == name and (vm not in listed or (vm, name) in self.gone):
                vcpus -= one.demand.vcpus
                memory -= one.demand.memory_mib
                disk -= one.demand.disk_mib
        # A destroyed VM may be credited until the node insists on it.
        vcpus_back = memory_back = disk_back = 0
        for vm, node in self.gone:
            if node == name and vm in listed:
                vcpus_back += listed[vm].vcpus
                memory_back += listed[vm].memory_mib
                disk_back += listed[vm].disk_gib * 1024
        assert vcpus <= view.free_vcpus <= vcpus + vcpus_back
        assert memory <= view.free_memory_mib <= memory + memory_back
        assert disk <= view.free_disk_mib <= disk + disk_back

    def _ask(self, reservations: list[Reservation]) -> None:
        for one in reservations:
            self.calls[one.vm] = Call(one, self.now)
        for one in reservations:
            self.refused.setdefault(one.vm, {})
            self.check(one.node)
            self._check_address(one)
            self.send(one)

    def _end(self, vm: str, call: Call) -> None:
        self.registry.settle(call.reservation, self.now)
        call.ended = self.now
        name = call.reservation.node
        if vm in self.beats[name].listed and (vm, name) not in self.gone:
            del self.calls[vm]
        self.check(name)

    def _is_over(self, call: Call, beat: Heartbeat, listed: dict[str, VmReport]) -> bool:
        """Whether a heartbeat is the last word on a call."""
        vm = call.reservation.vm
        if vm in listed and listed[vm].uuid != self.gone.get((vm, beat.node)):
            return call.ended is not None
        if call.reservation.session != beat.session:
            return True
        return call.ended is not None and self.now - call.ended >= SETTLE_SECONDS

    def _check_order(self, beat: Heartbeat) -> None:
        """What was accepted is newer, or of a session that still speaks when the other does not."""
        if beat.node in self.beats:
            newest, at, _ = self.beats[beat.node]
            if beat.session == newest.session:
                assert beat.sequence > newest.sequence
            else:
                assert beat.session not in self.sessions or self.now - at > STALE_SECONDS
        self.sessions.add(beat.session)

    def _check_address(self, reservation: Reservation) -> None:
        """The address is given to nobody else, as far as this controller can know."""
        node = reservation.node
        beat = self.beats[node].content
        taken = [vm.address for vm in beat.vms if (vm.id, node) not in self.gone]
        taken += [
            call.reservation.address
            for call in self.calls.values()
            if call.reservation.node == node and call.reservation is not reservation
        ]
        assert reservation.address is None or reservation.address not in taken

    def _check_choice(self, reservation: Reservation, views: list[NodeView]) -> None:
        """The chosen node fits in this controller's view, and the two passes were kept."""
        fitting = {view.name: view for view in views if fits(reservation.demand, view)}
        assert reservation.node in fitting, f"{reservation.vm} does not fit {reservation.node}"
        if fitting[reservation.node].reserved:
            assert all(view.reserved for view in fitting.values()), "the two passes were not kept"


def fits(demand: Demand, view: NodeView) -> bool:
    """Whether a node seems to have room, with none of the code under test."""
    return (
        demand.vcpus <= min(view.free_vcpus, view.largest_socket)
        and (demand.vcpus % 2 == 0 or view.allow_odd)
        and demand.memory_mib <= view.free_memory_mib
        and demand.disk_mib <= view.free_disk_mib
        and view.addresses != 0
        and (not demand.anti_affinity or (demand.owner, demand.anti_affinity) not in view.labels)
    )
