"""What one controller knows of the pool: in memory, and rebuilt from heartbeats (FLEET-02).

Three things make up what is free on a node: its newest heartbeat; reservations, for VMs this
controller has placed there that the heartbeat does not count yet; and traces of VMs destroyed there
that the heartbeat still counts. A heartbeat that was on its way while a call ended may say what was
before it. So a reservation or a trace stands until a heartbeat shows the change, or one that came
`SETTLE_SECONDS` after the end of the call, or one of a newer session of the agent, denies it.

Time is seconds of a clock that never jumps, passed in. Nothing here waits or does I/O; calls must
not overlap.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import IPv4Address
from itertools import count

from ppn.errors import Refusal
from ppn.fleet.index import Index
from ppn.fleet.model import Demand, NodeView
from ppn.fleet.node import Held, Node, Reservation
from ppn.fleet.policy import Choice, no_capacity, place
from ppn.fleet.settings import STALE_SECONDS
from ppn.wire.heartbeat import IN_TRANSIT, Heartbeat, VmReport
from ppn.wire.problems import NodeRefusal

INTERVAL_SECONDS = 10.0
# A heartbeat is not on its way for longer than this: agents give up sending one before.
SETTLE_SECONDS = 10.0


class Registry:
    """Nodes, VMs and reservations as one controller sees them.

    Args:
        addresses: the mesh address of every node that may send heartbeats, by name.
        now: the time of start, in seconds.
        stale_seconds: after so long without a heartbeat a node is no candidate.
    """

    def __init__(
        self,
        addresses: Mapping[str, IPv4Address],
        now: float,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._nodes = {name: Node(name, address) for name, address in addresses.items()}
        self._started = now
        self._stale_seconds = stale_seconds
        self._numbers = count()
        self._warm = False
        self._unheard = set(addresses)
        self._index = Index()
        self._live: OrderedDict[str, float] = OrderedDict()
        self._places: dict[str, set[str]] = {}
        self._twice: set[str] = set()
        # By node: what these lists say it holds, as `Node.held` does.
        self._listed: dict[str, dict[str, str]] = {name: {} for name in addresses}
        # By owner: the VM and the node it is on.
        self._owned: dict[str, set[tuple[str, str]]] = {}

    @property
    def index(self) -> Index:
        """The nodes that are candidates, as of the last call that was told the time."""
        return self._index

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Every node of the inventory."""
        return self._nodes

    def hear(self, heartbeat: Heartbeat, source: IPv4Address, now: float) -> None:
        """Take in what a node says of itself.

        Args:
            heartbeat: what it says.
            source: the address it came from.
            now: seconds.

        Raises:
            Refusal: `source_wrong` when the inventory gives that address to another node
                (FLEET-08), `heartbeat_old` when a newer one came before.
        """
        self.expire(now)
        node = self._nodes.get(heartbeat.node)
        if node is None or node.address != source:
            raise Refusal(
                f"heartbeat of node {heartbeat.node} came from {source}, which is not its address",
                code="source_wrong",
                constraint="mesh address of the node in the inventory",
                hint="send it from the node itself, through the mesh",
            )
        node.check_order(heartbeat, now - self._stale_seconds)
        node.take(heartbeat, now, now - SETTLE_SECONDS)
        self._unheard.discard(node.name)
        self._live[node.name] = now
        self._live.move_to_end(node.name)
        self._refresh(node)

    def expire(self, now: float) -> None:
        """Take nodes that have been silent for too long out of the candidates (FLEET-16)."""
        while self._live:
            name, heard = next(iter(self._live.items()))
            if now - heard <= self._stale_seconds:
                return
            del self._live[name]
            self._index.drop(name)

    def check_warm(self, now: float) -> None:
        """Refuse to judge what is not known: a controller that has just started hears first.

        Raises:
            Refusal: `warming_up`: nodes are unheard, and two heartbeat intervals are not over.
        """
        if self._warm:
            return
        since = now - self._started
        self._warm = not self._unheard or since >= 2 * INTERVAL_SECONDS
        if not self._warm:
            heard = len(self._nodes) - len(self._unheard)
            raise Refusal(
                f"the controller started {since:.0f} s ago and has not heard every node yet",
                code="warming_up",
                constraint="nodes heard since the start",
                wanted=len(self._nodes),
                free=heard,
                unit="node",
                hint=f"try again in {2 * INTERVAL_SECONDS - since:.0f} s",
            )

    def reserve(
        self,
        vm: str,
        demand: Demand,
        now: float,
        *,
        excluded: Mapping[str, NodeRefusal] | None = None,
    ) -> Reservation:
        """Choose a node for a VM and debit it there at once (FLEET-05, IP-01).

        Args:
            vm: its id, which nothing has yet.
            demand: what it needs.
            now: seconds.
            excluded: nodes that have refused this VM already, with their reasons.

        Raises:
            NoCapacity: no node fits; says of each why.
            Refusal: `vm_exists`.
        """
        self.expire(now)
        if vm in self._places:
            raise Refusal(
                f"vm {vm} is on {' and '.join(sorted(self._places[vm]))} already",
                code="vm_exists",
                constraint="VM id",
                hint="look at it, destroy it, or use another idempotency key",
            )
        choice = place(demand, self._index, excluded)
        if choice is None:
            others = self._silent(now) | dict(excluded or {})
            raise no_capacity(vm, demand, self._index.views().values(), others)
        return self._debit(vm, demand, choice)

    def reserve_all(
        self, vms: Mapping[str, Demand], now: float, *, per_item: bool = False
    ) -> dict[str, Reservation | Refusal]:
        """Place several VMs one after the other, each seeing those before it (FLEET-12).

        Args:
            vms: what each needs, by id.
            now: seconds.
            per_item: place those that fit; else one that does not fit undoes them all.

        Returns:
            What became of each, in the order asked.

        Raises:
            Refusal: not `per_item`, and one could not be placed; nothing is reserved then.
        """
        found: dict[str, Reservation | Refusal] = {}
        for vm, demand in vms.items():
            try:
                found[vm] = self.reserve(vm, demand, now)
            except Refusal as refusal:
                if not per_item:
                    for placed in found.values():
                        if isinstance(placed, Reservation):
                            self.release(placed)
                    raise
                found[vm] = refusal
        return found

    def settle(self, reservation: Reservation, now: float, report: VmReport | None = None) -> None:
        """The call that makes a reserved VM has ended, and was not refused.

        Args:
            reservation: what was decided; nothing happens if it does not stand any more.
            now: seconds.
            report: the VM as the agent answered; None when the answer did not come, so that
                only heartbeats can tell.
        """
        node = self._nodes[reservation.node]
        if node.holds(reservation):
            node.settle(reservation, now, report)

    def release(self, reservation: Reservation) -> None:
        """A reserved VM was surely not made by this decision: credit it again.

        Nothing happens if it does not stand any more, as after a newer session of the agent.
        """
        node = self._nodes[reservation.node]
        if node.holds(reservation):
            del node.reserved[reservation.vm]
            self._refresh(node)

    def forget(self, vm: str, name: str, now: float) -> None:
        """Nothing is left of a VM on a node, says its agent: credit it at once.

        Args:
            vm: its id.
            name: the node it was on.
            now: seconds.
        """
        node = self._nodes[name]
        node.forget(vm, now)
        self._refresh(node)

    def find(self, vm: str, now: float) -> tuple[Held, ...]:
        """Where a VM is: on one node, on none, or on several if something went wrong.

        A VM between two nodes is on the one that can run it, else on the one it comes from.
        """
        held = [self._held(vm, node, now) for node in self._at(vm)]
        whole = [one for one in held if one.report.state not in IN_TRANSIT]
        return tuple(whole or sorted(held, key=lambda one: one.report.state != "moving")[:1])

    def vms(self, now: float, owner: str | None = None) -> tuple[Held, ...]:
        """Every VM, or every VM of one owner, by id; one between two nodes once (FLEET-07)."""
        owners = self._owned if owner is None else (owner,)
        found = sorted({vm for one in owners for vm, _ in self._owned.get(one, ())})
        return tuple(held for vm in found for held in self.find(vm, now))

    def in_transit(self, now: float) -> tuple[Held, ...]:
        """Every node's part of a VM between two nodes, by id."""
        found = [
            (vm, node.name)
            for node in self._nodes.values()
            for vm, report in node.reported.items()
            if report.state in IN_TRANSIT and vm not in node.gone
        ]
        return tuple(self._held(vm, self._nodes[name], now) for vm, name in sorted(found))

    def doubled(self) -> dict[str, tuple[str, ...]]:
        """VMs that more than one node has for its own, with the nodes: each is an alert."""
        held = {vm: self._whole(vm) for vm in sorted(self._twice)}
        return {vm: names for vm, names in held.items() if len(names) > 1}

    def is_stale(self, node: Node, now: float) -> bool:
        """Whether a node was never heard, or not lately by this controller's own clock."""
        return node.heard is None or now - node.heard > self._stale_seconds

    def is_missed(self, node: Node, now: float) -> bool:
        """Whether a node is silent although this controller has run for long enough to hear it."""
        since = node.heard if node.heard is not None else self._started
        return now - since > self._stale_seconds

    def view(self, node: Node) -> NodeView | None:
        """What may still be placed on a node, also when it is stale; None before it was heard."""
        if node.heartbeat is None:
            return None
        return self._index.view(node.name) or node.view()

    def _debit(self, vm: str, demand: Demand, choice: Choice) -> Reservation:
        node = self._nodes[choice.node.name]
        reservation = node.reserve(next(self._numbers), vm, demand, choice.passed)
        self._refresh(node)
        return reservation

    def _refresh(self, node: Node) -> None:
        """List what a node holds now, and offer it as it is, if it is to be offered."""
        before, after = self._listed[node.name], node.held()
        if before != after:
            self._listed[node.name] = after
            self._relist(node.name, before, after)
        if node.name in self._live:
            self._index.put(node.view())

    def _at(self, vm: str) -> list[Node]:
        return [self._nodes[name] for name in sorted(self._places.get(vm, ()))]

    def _whole(self, vm: str) -> tuple[str, ...]:
        """The nodes that have a VM and are not just sending it or taking it in."""
        found = [node for node in self._at(vm) if node.report(vm).state not in IN_TRANSIT]
        return tuple(node.name for node in found)

    def _held(self, vm: str, node: Node, now: float) -> Held:
        return Held(node.name, self.is_stale(node, now), node.report(vm))

    def _silent(self, now: float) -> dict[str, NodeRefusal]:
        """Why nodes that are not heard are no candidates."""
        return {
            name: NodeRefusal(
                node=name,
                code="node_stale",
                message=f"node {name} "
                + (
                    f"was last heard {now - node.heard:.0f} s ago"
                    if node.heard is not None
                    else "has not been heard yet"
                ),
                constraint="heartbeat of the node",
            )
            for name, node in self._nodes.items()
            if name not in self._live
        }

    def _relist(self, name: str, before: dict[str, str], after: dict[str, str]) -> None:
        """Bring the lists by VM and by owner up to what a node holds now."""
        for vm, owner in before.items():
            if after.get(vm) != owner:
                self._strike(vm, owner, name)
        for vm, owner in after.items():
            if before.get(vm) != owner:
                self._enter(vm, owner, name)

    def _strike(self, vm: str, owner: str, name: str) -> None:
        """A VM of this owner is no more on a node."""
        owned, places = self._owned[owner], self._places[vm]
        owned.discard((vm, name))
        places.discard(name)
        if not owned:
            del self._owned[owner]
        if not places:
            del self._places[vm]
        if len(places) < 2:
            self._twice.discard(vm)

    def _enter(self, vm: str, owner: str, name: str) -> None:
        """A VM of this owner is on a node."""
        places = self._places.setdefault(vm, set())
        places.add(name)
        self._owned.setdefault(owner, set()).add((vm, name))
        if len(places) > 1:
            self._twice.add(vm)
