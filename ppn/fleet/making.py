"""Making VMs: placed, intended, asked for, and placed again where a node refuses."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ppn.errors import PpnError, Refusal
from ppn.fleet.decisions import Decisions
from ppn.fleet.identity import agrees, differs, order_digest
from ppn.fleet.journal import Intent, Journal
from ppn.fleet.model import demand_of
from ppn.fleet.node import Held, Reservation
from ppn.fleet.nodes import Call, Nodes, OutcomeUnknown, vm_in
from ppn.fleet.peers import Peers, Stage, elsewhere
from ppn.fleet.registry import Registry
from ppn.fleet.reports import node_refusal, placed_vm
from ppn.host.spec import VmSpec, spec_from_data
from ppn.log import get_logger
from ppn.wire.fleet import PlacedVm, VmOrder
from ppn.wire.heartbeat import VmReport
from ppn.wire.problems import NoCapacity, NodeRefusal

RETRY_SECONDS = 1.0
POLL_SECONDS = 0.5
# What is wrong with the order itself, whichever node is asked.
FINAL_CODES = frozenset({"order_elsewhere", "request_invalid", "spec_invalid", "vm_exists"})
# Failures, not refusals, after which nothing was asked of the agent all the same.
NOT_ASKED = frozenset(
    {"agent_busy", "agent_unavailable", "node_busy", "node_unknown", "node_unreachable"}
    | {"tls_unusable"}
)
# What a VM is that was made; one whose QEMU died under it is started by asking again.
RUNS = frozenset({"running", "stabilising"})
# How many VMs a controller remembers to have told a caller of.
TOLD_KEPT = 65536

log = get_logger("fleet")


@dataclass(frozen=True)
class Asked:
    """Who waits for an answer, and until when.

    Args:
        correlation_id: of the request.
        deadline: in seconds of the controller's clock.
        batch: the batch it is a part of; empty for a single VM.
    """

    correlation_id: str
    deadline: float
    batch: str = ""


@dataclass(frozen=True)
class Made:
    """A VM that runs; `fresh` when this very request had it made."""

    placed: PlacedVm
    fresh: bool


@dataclass
class Maker:
    """Has VMs made; the same order twice is one VM.

    Args:
        registry: what is known of the pool.
        journal: what was begun.
        nodes: the way to the agents.
        peers: the other controllers.
        clock: seconds that never jump.
        under_way: the VMs in the making, each with the digest of its order.
        checking: of these, those that other controllers are asked about just now.
        open_batches: the batches this process is at, each with its VMs.
        told: the nodes of VMs that a caller was told of, by VM, the oldest first.
        decisions: the last decision on each VM.
    """

    registry: Registry
    journal: Journal
    nodes: Nodes
    peers: Peers
    clock: Callable[[], float]
    under_way: dict[str, tuple[str, asyncio.Task[Made]]] = field(default_factory=dict)
    checking: set[str] = field(default_factory=set)
    open_batches: dict[str, frozenset[str]] = field(default_factory=dict)
    told: OrderedDict[str, str] = field(default_factory=OrderedDict)
    decisions: Decisions = field(default_factory=Decisions)

    async def make(
        self, vm: str, order: VmOrder, asked: Asked, placed: Reservation | None = None
    ) -> Made:
        """Have a VM made, or find it made.

        The work goes on when the caller no longer waits; asking again joins it.

        Args:
            vm: its id.
            order: what it shall be.
            asked: who waits.
            placed: where it goes first, when that was decided already.

        Raises:
            NoCapacity: no node can or will take it.
            OutcomeUnknown: the chosen node does not say; ask again.
            Refusal: `order_differs`, `vm_undecided`, `warming_up`.
        """
        digest = order_digest(order)
        known = self.under_way.get(vm)
        if known is not None and placed is not None:
            # What goes on already finds its own place.
            self.registry.release(placed)
        if known is not None and known[0] != digest:
            raise differs(vm)
        if known is None:
            work = self._make if placed is None else partial(self._place, first=placed)
            task = asyncio.create_task(work(vm, order, asked))
            task.add_done_callback(lambda done: self._ended(vm, order, done))
            self.under_way[vm] = (digest, task)
        else:
            task = known[1]
        made = await asyncio.shield(task)
        if asked.batch == "":
            self.tell(made)
        return made

    def tell(self, *made: Made) -> None:
        """Remember that a caller is told of VMs: no other controller may take them back."""
        for one in made:
            vm = one.placed.vm.id
            self.told[vm] = one.placed.node
            self.told.move_to_end(vm)
        while len(self.told) > TOLD_KEPT:
            self.told.popitem(last=False)

    def stage(self, vm: str) -> Stage | None:
        """How far this controller is with a VM; None when it has nothing to do with it."""
        if vm in self.checking:
            return "checking"
        if vm in self.journal.intents:
            return "going"
        if vm in self.under_way or any(vm in vms for vms in self.open_batches.values()):
            return "waiting"
        return "told" if vm in self.told else None

    def _ended(self, vm: str, order: VmOrder, task: asyncio.Task[Made]) -> None:
        self.under_way.pop(vm, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, PpnError):
            self.decisions.failed(vm, demand_of(order), error)
        if error is not None:
            log.info("not made", vm=vm, error=str(error))

    async def _make(self, vm: str, order: VmOrder, asked: Asked) -> Made:
        self.registry.check_warm(self.clock())
        intent = self.journal.intents.get(vm)
        if intent is not None and intent.batch:
            # Of a batch that failed: it may be there still, and is taken back.
            self.check_decided(vm)
        if held := await self._existing(vm, order, asked):
            return Made(placed_vm(held), fresh=False)
        self.check_decided(vm)
        return await self._place(vm, order, asked)

    async def _place(
        self, vm: str, order: VmOrder, asked: Asked, first: Reservation | None = None
    ) -> Made:
        """Ask one node after the other, the best first, until one has made it."""
        excluded: dict[str, NodeRefusal] = {}
        while True:
            reservation, first = first, None
            if reservation is None:
                reservation = self.registry.reserve(
                    vm, demand_of(order), self.clock(), excluded=excluded
                )
            self.decisions.placed(reservation, self.registry.index.views(), excluded)
            try:
                report = await self._attempt(reservation, order, asked)
            except OutcomeUnknown:
                # The reservation and the intent stand until the node tells.
                self.registry.settle(reservation, self.clock())
                raise
            except PpnError as error:
                self.registry.release(reservation)
                # Whatever is there under this id is not of this order: never to be taken back.
                self.journal.end(vm)
                if error.code in FINAL_CODES:
                    raise
                log.info("node refused", vm=vm, node=reservation.node, code=error.code)
                excluded[reservation.node] = node_refusal(reservation.node, error)
                if self.clock() >= asked.deadline:
                    raise NoCapacity(
                        f"vm {vm}: no node made it in time", excluded.values()
                    ) from error
                # A heartbeat may have told of it meanwhile, and of its end the next one.
                if held := await self._existing(vm, order, asked):
                    return Made(placed_vm(held), fresh=False)
                continue
            except BaseException:
                # What nobody foresaw may have been after the call: heartbeats tell.
                self.registry.settle(reservation, self.clock())
                raise
            self.registry.settle(reservation, self.clock(), report)
            made = Made(PlacedVm(node=reservation.node, vm=report), fresh=True)
            # A batch ends as one, once all of it is made.
            if asked.batch == "":
                # First: other controllers are never to find neither. Its caller may have gone.
                self.tell(made)
                self.journal.end(vm)
            log.info("made", vm=vm, node=reservation.node, owner=order.owner)
            return made

    async def _existing(self, vm: str, order: VmOrder, asked: Asked) -> Held | None:
        """The VM where it is already; one in the making is waited for."""
        while found := self.registry.find(vm, self.clock()):
            held = found[0]
            if not agrees(held.report, order):
                raise differs(vm)
            if held.report.state != "creating":
                # What is known may be older than the VM's end: its node has the last word.
                report = await self._look(vm, held.node, asked)
                if report is not None:
                    return replace(held, report=report)
                self.registry.forget(vm, held.node, self.clock())
                continue
            if self.clock() >= asked.deadline:
                raise OutcomeUnknown(
                    f"vm {vm} is still in the making on node {held.node}", hint="ask again"
                )
            await asyncio.sleep(POLL_SECONDS)
        return None

    def check_decided(self, vm: str) -> None:
        """Refuse a VM of which this controller does not know whether it was made.

        Raises:
            Refusal: `vm_undecided`.
        """
        intent = self.journal.intents.get(vm)
        if intent is not None:
            raise Refusal(
                f"vm {vm} was begun on node {intent.node}, which has not told what became of it",
                code="vm_undecided",
                constraint="one VM for one order",
                hint="ask again once that node is heard",
            )

    async def _attempt(self, reservation: Reservation, order: VmOrder, asked: Asked) -> VmReport:
        """Ask one node, again and again while its answer is open and somebody waits."""
        vm = reservation.vm
        intent = Intent(
            id=vm,
            owner=order.owner,
            digest=order_digest(order),
            node=reservation.node,
            batch=asked.batch,
        )
        self.checking.add(vm)
        try:
            await asyncio.to_thread(self.journal.intend, intent)
            await self._check_not_made(vm, await self.peers.check_alone(vm), asked)
        finally:
            self.checking.discard(vm)
        body = spec_of(vm, order, reservation).model_dump(mode="json", exclude_defaults=True)
        open_before = False
        while True:
            try:
                answer = await self.nodes.ask(self._spawn(reservation, body, asked))
                return vm_in(answer, reservation.node)
            except OutcomeUnknown as error:
                open_now: PpnError = error
            except PpnError as error:
                # An earlier call may have been carried out all the same: the node is asked.
                if error.code != "vm_busy" and not open_before and surely_not_done(error):
                    raise
                report = await self._settled(reservation, error, asked)
                if report is not None:
                    return report
                open_now = error
            open_before = True
            if asked.deadline - self.clock() <= 2 * RETRY_SECONDS:
                raise OutcomeUnknown(
                    f"what becomes of vm {vm} is open: {open_now.message}", hint="ask again"
                ) from open_now
            await asyncio.sleep(RETRY_SECONDS)

    async def _check_not_made(self, vm: str, nodes: frozenset[str], asked: Asked) -> None:
        """Refuse a VM that another controller has made since this one looked for it.

        Its heartbeat may not have come yet, so the nodes themselves are asked.

        Raises:
            Refusal: `order_elsewhere`: it is there, or its node does not say.
        """
        for node in nodes & self.registry.nodes.keys():
            try:
                report = await self._look(vm, node, asked)
            except PpnError as error:
                raise elsewhere(vm, f"may be on {node}, which does not say") from error
            if report is not None:
                raise elsewhere(vm, f"was made on {node} by another controller")

    async def _settled(
        self, reservation: Reservation, error: PpnError, asked: Asked
    ) -> VmReport | None:
        """The VM, if it runs on its node by now; None while that is open.

        Raises:
            PpnError: `error` itself: the node has nothing of it, nor anything to make it from.
        """
        if error.code in NOT_ASKED:
            return None
        try:
            report = await self._look(reservation.vm, reservation.node, asked)
        except OutcomeUnknown:
            return None
        if report is None and error.code != "vm_busy":
            # Whatever the last heartbeat said of it.
            self.registry.forget(reservation.vm, reservation.node, self.clock())
            raise error
        return report if report is not None and report.state in RUNS else None

    def _spawn(self, reservation: Reservation, body: dict[str, Any], asked: Asked) -> Call:
        return Call(
            node=reservation.node,
            address=self.registry.nodes[reservation.node].address,
            method="POST",
            path="/v1/vms",
            correlation_id=asked.correlation_id,
            session=reservation.session,
            body=body,
            seconds=max(asked.deadline - self.clock(), RETRY_SECONDS),
        )

    async def _look(self, vm: str, node: str, asked: Asked) -> VmReport | None:
        """A VM as a node says it is; None when the node has none of that id.

        Raises:
            OutcomeUnknown: the node does not say.
        """
        call = Call(
            node=node,
            address=self.registry.nodes[node].address,
            method="GET",
            path=f"/v1/vms/{vm}",
            correlation_id=asked.correlation_id,
            seconds=max(asked.deadline - self.clock(), RETRY_SECONDS),
        )
        try:
            answer = await self.nodes.ask(call)
        except PpnError as error:
            if error.code == "vm_unknown":
                return None
            raise OutcomeUnknown(
                f"node {node} does not say what became of vm {vm}: {error.message}",
                hint="ask again",
            ) from error
        return vm_in(answer, node)


def spec_of(vm: str, order: VmOrder, reservation: Reservation) -> VmSpec:
    """An order as the node that was chosen for it understands it."""
    given = order.model_dump(
        include={"owner", "image", "vcpus", "memory_mib", "disk_gib", "ssh_keys", "label"}
    )
    data = {
        **given,
        "name": vm,
        "hostname": order.name or vm,
        "user_data": order.user_data,
        "disks": order.disks,
    }
    if reservation.address is not None:
        data["address"] = reservation.address
    if order.ports:
        data["ports"] = [port.model_dump() for port in order.ports]
    return spec_from_data(data)


def surely_not_done(error: PpnError) -> bool:
    """Whether an answer says that a node has not made a VM; a failure half-way does not."""
    return isinstance(error, Refusal) or error.code in NOT_ASKED
