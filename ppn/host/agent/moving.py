"""The agent's part in moves of VMs: which side it is on, and how far it is (MIG-01 to MIG-03)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from ppn.errors import Refusal
from ppn.host.agent.arrivals import Arrivals
from ppn.host.agent.departures import Departures
from ppn.host.agent.report import vm_report
from ppn.host.agent.settings import AgentSettings
from ppn.host.model import IN_TRANSIT
from ppn.host.moving import policy
from ppn.host.sidecar import Sidecar, read_sidecar
from ppn.wire.agent import Delivery, Moving
from ppn.wire.moving import Depart, Greet, MoveStep, MoveView, PrepareArrival, Prepared
from ppn.wire.problems import problem_of

if TYPE_CHECKING:
    from ppn.host.agent.service import Service


class Moves:
    """Moves of VMs from and to this node.

    Args:
        service: the agent's own.
        settings: of the agent.
    """

    def __init__(self, service: Service, settings: AgentSettings) -> None:
        self._service = service
        self._departures = Departures(service, settings)
        self._arrivals = Arrivals(service, settings)

    def do(self, body: Moving, correlation_id: str) -> dict[str, Any]:
        """Do a step of a move, and tell how far this node is then.

        Raises:
            PpnError: refused or failed.
        """
        match body:
            case PrepareArrival():
                secret = self._arrivals.prepare(body, correlation_id)
                view = self.view(body.vm)
                return Prepared(secret=secret, view=view).model_dump(mode="json")
            case Depart():
                self._departures.depart(body, correlation_id)
            case MoveStep():
                self._step(body, correlation_id)
            case _:
                assert_never(body)
        return self.view(body.vm).model_dump(mode="json")

    def take(self, body: Delivery) -> dict[str, Any]:
        """Answer the agent of the node a VM comes from.

        Raises:
            PpnError: refused or failed.
        """
        if isinstance(body, Greet):
            return self._arrivals.greet(body).model_dump(mode="json")
        return self._arrivals.deliver(body).model_dump(mode="json")

    def view(self, vm: str) -> MoveView:
        """How far this node is with the last move of a VM.

        Raises:
            PpnError: the VM's sidecar or the node cannot be read.
        """
        sidecar = read_sidecar(self._service.paths.vm(vm).sidecar)
        known = MoveView(
            vm=vm,
            stage=policy.stage_of(sidecar),
            move=sidecar.move.id if sidecar is not None and sidecar.move is not None else "",
            peer=sidecar.move.peer if sidecar is not None and sidecar.move is not None else "",
        )
        if sidecar is None:
            return known
        if sidecar.phase not in IN_TRANSIT:
            return self._at_rest(vm, sidecar, known)
        if sidecar.phase == "arriving":
            return self._arrivals.view(sidecar, known)
        return self._departures.view(sidecar, known)

    def finish(self) -> None:
        """End what is going on; it goes on when it is asked for again."""
        self._departures.finish()

    def _at_rest(self, vm: str, sidecar: Sidecar, known: MoveView) -> MoveView:
        node = self._service.look()
        view = node.vm(vm)
        if view is None:
            return known.model_copy(update={"stage": "gone"})
        try:
            offer, problem = policy.offer_of(view, node), None
        except Refusal as refusal:
            offer, problem = None, problem_of(refusal)
        return known.model_copy(
            update={
                "settled": view.state == sidecar.spec.state,
                "offer": offer,
                "problem": problem,
                "report": vm_report(view),
            }
        )

    def _step(self, body: MoveStep, correlation_id: str) -> None:
        steps = {
            "commit": self._departures.commit,
            "back": self._departures.back,
            "release": self._departures.release,
            "reclaim": self._departures.reclaim,
            "settle": self._arrivals.settle,
            "drop": self._arrivals.drop,
        }
        steps[body.step](body, correlation_id)
