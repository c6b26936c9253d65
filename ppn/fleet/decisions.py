"""The last decisions of a controller, kept for whoever asks why: bounded, in memory (CLI-03)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice

from ppn.errors import PpnError
from ppn.fleet.model import WHOLE, Demand, NodeView
from ppn.fleet.node import Reservation
from ppn.fleet.policy import refusals
from ppn.wire.fleet import Decision
from ppn.wire.problems import NoCapacity, NodeRefusal, ProblemBody, problem_of

VMS_KEPT = 1024
# Of a pool of thousands nobody reads more.
NODES_KEPT = 32


class Decisions:
    """The last decision on each of the VMs that were decided on lately."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Decision] = OrderedDict()

    def last(self, vm: str) -> Decision | None:
        """The last decision on a VM; None when there was none lately."""
        return self._known.get(vm)

    def placed(
        self,
        reservation: Reservation,
        views: Mapping[str, NodeView],
        excluded: Mapping[str, NodeRefusal],
    ) -> None:
        """A node was chosen.

        Args:
            reservation: what was decided.
            views: every node that was a candidate, by name.
            excluded: nodes that refused this VM before, with their reasons, in the order asked.
        """
        why = {**excluded}
        others = (view for name, view in views.items() if name not in {*why, reservation.node})
        for view in islice(others, max(NODES_KEPT - len(why), 0)):
            why[view.name] = why_not(reservation.demand, view)
        self._keep(
            Decision(
                id=reservation.vm,
                at=_now(),
                node=reservation.node,
                policy=reservation.demand.policy,
                passed=reservation.passed,
                candidates=len(views),
                tried=(*excluded, reservation.node),
                refused=_first(why.values()),
                left_out=max(len(views) - len(views.keys() & {*why, reservation.node}), 0),
            )
        )

    def failed(self, vm: str, demand: Demand, error: PpnError) -> None:
        """An order was not carried out, or its outcome is open.

        Args:
            vm: its id.
            demand: what was wanted.
            error: what its caller is told.
        """
        before = self._known.get(vm)
        if before is None or isinstance(error, NoCapacity):
            nodes = error.nodes if isinstance(error, NoCapacity) else ()
            before = Decision(
                id=vm,
                at=_now(),
                node=None,
                policy=demand.policy,
                passed="none",
                candidates=len(nodes),
                tried=before.tried if before is not None else (),
                refused=_first(nodes),
                left_out=max(len(nodes) - NODES_KEPT, 0),
            )
        self._keep(before.model_copy(update={"problem": _told(error)}))

    def _keep(self, decision: Decision) -> None:
        self._known[decision.id] = decision
        self._known.move_to_end(decision.id)
        while len(self._known) > VMS_KEPT:
            self._known.popitem(last=False)


def why_not(demand: Demand, view: NodeView) -> NodeRefusal:
    """Why a VM did not go to a node: what keeps it from there, or that another one was better.

    Args:
        demand: what was wanted.
        view: the node.
    """
    if first := next(refusals(demand, view), None):
        return first
    text = f"fits, and its fullest resource is {view.share * 100 // WHOLE} % used"
    if view.reserved:
        text = "fits, and is reserved"
    elif demand.kvm and not view.kvm:
        text = "fits, without usable KVM"
    constraint = f"policy {demand.policy}"
    return NodeRefusal(node=view.name, code="not_chosen", message=text, constraint=constraint)


def _first(nodes: Iterable[NodeRefusal]) -> tuple[NodeRefusal, ...]:
    return tuple(sorted(islice(nodes, NODES_KEPT), key=lambda refusal: refusal.node))


def _told(error: PpnError) -> ProblemBody:
    """The error without its nodes, which stand beside it."""
    return problem_of(error).model_copy(update={"nodes": ()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
