"""One move from its begin to its end: looks at both nodes, decides, tells one, and looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ppn.errors import PpnError, Refusal
from ppn.fleet.journal import Intent
from ppn.fleet.making import NOT_ASKED
from ppn.fleet.moving.lines import Lines
from ppn.fleet.moving.policy import (
    ARRIVING,
    SOURCE_WORK,
    Next,
    Side,
    Will,
    committed,
    decide,
    side_of,
)
from ppn.fleet.registry import Registry
from ppn.log import get_logger
from ppn.wire.fleet import MoveReport
from ppn.wire.moving import MoveView, Step
from ppn.wire.problems import error_of, problem_of

POLL_SECONDS = 0.5
MOST_PAUSE_SECONDS = 10.0
# A VM that cannot be started where it is now is tried again for so long.
REST_SECONDS = 60.0
# What passes by itself, or is put right by asking again.
PASSING = NOT_ASKED | frozenset(
    {"agent_failed", "agent_timeout", "destination_unreachable", "move_called_back"}
    | {"outcome_unknown", "ticket_refused", "vm_busy"}
)
STEPS: dict[Next, Step] = {
    Next.COMMIT: "commit",
    Next.BACK: "back",
    Next.RELEASE: "release",
    Next.RECLAIM: "reclaim",
    Next.SETTLE: "settle",
    Next.DROP: "drop",
}
AT_SOURCE = frozenset({Next.COMMIT, Next.BACK, Next.RELEASE, Next.RECLAIM})
LAST = frozenset({Next.DONE, Next.FAILED, Next.LOST})

log = get_logger("fleet")


@dataclass
class Drive:
    """A move that this controller drives.

    Args:
        intent: the move, as it stands in the journal.
        lines: to the two nodes.
        registry: hears at once of what is gone from a node.
        clock: seconds that never jump.
        stall_seconds: a move that comes no further for so long is called back.
        will: what is wanted of it.
        problem: why it is called back, or why the VM does not run where it is.
    """

    intent: Intent
    lines: Lines
    registry: Registry
    clock: Callable[[], float]
    stall_seconds: float
    will: Will = field(default_factory=Will)
    problem: PpnError | None = None
    outcome: Literal["going", "done", "failed"] = "going"
    source: MoveView | None = None
    destination: MoveView | None = None
    _progress: tuple[object, ...] = ()
    _since: float = 0.0
    _failing: float | None = None
    _last: Next = Next.WAIT
    _lost_before: bool = False
    _pause: float = POLL_SECONDS

    async def run(self) -> Next:
        """Bring the move to its end.

        Returns:
            Done, failed, or lost.
        """
        self._since = self.clock()
        while True:
            self.source, self.destination = await asyncio.gather(
                self._look(self.intent.source), self._look(self.intent.node)
            )
            source, destination = self._sides()
            self._judge(source, destination)
            chosen = decide(source, destination, self.will)
            before, self._lost_before = self._lost_before, self._is_lost(source, destination)
            if self._lost_before and not before:
                # Of two looks at one time one may be older: another controller ended it between.
                await asyncio.sleep(POLL_SECONDS)
                continue
            self._note_outcome(source, destination, chosen)
            if chosen is not self._last:
                log.info("move", vm=self.intent.id, move=self.intent.move, next=chosen.value)
                self._last, self._pause = chosen, POLL_SECONDS
            if chosen in LAST:
                return chosen
            await self._act(chosen)

    def cancel(self) -> MoveReport:
        """Call it back; how far it is then.

        Raises:
            Refusal: `move_committed`: the VM is the destination's already.
        """
        source, _ = self._sides()
        if self.will.taken or source.stage == "moved" or self.outcome == "done":
            raise committed(self.intent.id, self.intent.node)
        self._call_back(
            PpnError(
                f"the move of vm {self.intent.id} was cancelled",
                code="move_cancelled",
                hint="the VM stays where it was; move it again whenever you like",
            )
        )
        return self.report()

    def report(self) -> MoveReport:
        """How far it is."""
        view = self._leading()
        here = self.destination if self.outcome == "done" else self.source
        return MoveReport(
            id=self.intent.id,
            move=self.intent.move,
            source=self.intent.source,
            node=self.intent.node,
            stage=self.stage,
            bytes_done=view.bytes_done if view is not None else 0,
            bytes_total=view.bytes_total if view is not None else 0,
            outcome=self.outcome,
            problem=problem_of(self.problem) if self.problem is not None else None,
            vm=here.report if here is not None and self.outcome != "going" else None,
        )

    @property
    def stage(self) -> str:
        """What is done now, in a word."""
        if self.outcome != "going":
            return self.outcome
        if self.will.back:
            return "back"
        view = self._leading()
        if view is None or view.stage in ("here", "gone"):
            return "preparing"
        return "settling" if view.stage in ("moved", "settled") else view.stage

    def _leading(self) -> MoveView | None:
        """The node that does what all wait for."""
        there = self.destination
        if there is not None and there.stage == "verifying" and self._is_mine(there):
            return there
        return self.source if self.source is not None and self._is_mine(self.source) else None

    def _is_mine(self, view: MoveView) -> bool:
        return view.move == self.intent.move

    def _is_lost(self, source: Side, destination: Side) -> bool:
        """Whether it is for an operator to say what is next, also where one has."""
        return decide(source, destination, replace(self.will, keep=None)) is Next.LOST

    def _sides(self) -> tuple[Side, Side]:
        move = self.intent.move
        return side_of(self.source, move), side_of(self.destination, move)

    async def _look(self, node: str) -> MoveView | None:
        if node not in self.registry.nodes:
            # It has left the inventory: the pool has lost it with all that is on it.
            return MoveView(vm=self.intent.id, stage="gone")
        try:
            return await self.lines.view(self.intent.id, node)
        except PpnError as error:
            log.info("node does not say", vm=self.intent.id, node=node, code=error.code)
            return None

    def _judge(self, source: Side, destination: Side) -> None:
        """Give up what fails for good, or comes no further; only while that is possible."""
        if destination.stage == "settled":
            self.will = replace(self.will, taken=True)
        told = [
            view.problem
            for view, side in ((self.source, source), (self.destination, destination))
            if view is not None
            and view.problem is not None
            and side.stage in SOURCE_WORK | ARRIVING
            and not (view is self.source and side.active)
        ]
        for problem in told:
            if problem.code not in PASSING:
                self._call_back(error_of(problem))
        views = [(one.stage, one.bytes_done) for one in (self.source, self.destination) if one]
        now, progress = self.clock(), tuple(views)
        if progress != self._progress or source.stage == "unknown":
            self._progress, self._since = progress, now
        if now - self._since >= self.stall_seconds and source.stage in SOURCE_WORK | {"here"}:
            reason = told[0].detail if told else "no node says why"
            self._call_back(
                PpnError(
                    f"the move of vm {self.intent.id} came no further for"
                    f" {self.stall_seconds:g} s: {reason}",
                    code="move_stalled",
                    hint="look at the mesh path between the two nodes, then move it again",
                )
            )

    def _call_back(self, problem: PpnError) -> None:
        if not self.will.back:
            log.warning(
                "move called back", vm=self.intent.id, code=problem.code, error=str(problem)
            )
            self.problem = problem
            self.will = replace(self.will, back=True)

    def _note_outcome(self, source: Side, destination: Side, chosen: Next) -> None:
        """What callers hear: it is where it shall be, whatever is left to remove elsewhere."""
        if chosen in (Next.DONE, Next.RELEASE) and self.will.keep != "neither":
            self.outcome = "done"
            if not self.will.rest:
                # It may have been called back too late; it has moved all the same.
                self.problem = None
        elif chosen in (Next.FAILED, Next.DROP, Next.LOST, Next.RELEASE):
            self.outcome = "failed"
        if chosen is Next.LOST:
            self.problem = self._lost(source, destination)
        elif source.stage == "gone" and self.outcome == "failed" and self.will.keep is None:
            self.problem = PpnError(
                f"vm {self.intent.id} is on {self.intent.source} no more: it was removed there"
                " before it was given up",
                code="vm_unknown",
                hint="find out in the audit log who destroyed it",
            )

    def _lost(self, source: Side, destination: Side) -> PpnError:
        """Why only a person can say what is right."""
        vm, here, there = self.intent.id, self.intent.source, self.intent.node
        if destination.stage == "settled":
            return PpnError(
                f"{there} has vm {vm}, and {here} keeps all of it as well, from before it was lost",
                code="move_lost",
                hint=f"remove /var/lib/ppn/vms/{vm} on {here}, which never starts it by itself",
            )
        if source.stage == "gone":
            text, keeps = f"{here} has nothing of vm {vm} any more", there
        elif destination.stage == "here":
            text, keeps = f"{there} has vm {vm}, and not by this move", here
        else:
            text, keeps = f"{there} has not the vm {vm} that was given up to it", here
        return PpnError(
            f"{text}; {keeps} keeps all of it, and starts it by itself no more",
            code="move_lost",
            hint=f"what {keeps} keeps of it is in /var/lib/ppn/vms there;"
            f" ppn vm end-move {vm} says what can be done",
        )

    async def _act(self, chosen: Next) -> None:
        """Do what was decided; what fails is seen when looking again."""
        try:
            await self._do(chosen)
            self._failing = None
            if chosen is Next.WAIT:
                await asyncio.sleep(POLL_SECONDS)
        except PpnError as error:
            self._failed(chosen, error)
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 1.5, MOST_PAUSE_SECONDS)

    async def _do(self, chosen: Next) -> None:
        intent = self.intent
        match chosen:
            case Next.PREPARE:
                offer = self.source.offer if self.source is not None else None
                await self.lines.prepare(intent, offer)
            case Next.DEPART:
                # Asked again it is the same; an agent that was started anew has another one.
                secret = await self.lines.prepare(intent, None)
                await self.lines.depart(intent, secret)
            case _ if chosen in STEPS:
                node = intent.source if chosen in AT_SOURCE else intent.node
                await self.lines.step(intent, node, STEPS[chosen])
                if chosen in (Next.RELEASE, Next.DROP):
                    self.registry.forget(intent.id, node, self.clock())

    def _failed(self, chosen: Next, error: PpnError) -> None:
        log.info("move step failed", vm=self.intent.id, next=chosen.value, code=error.code)
        now = self.clock()
        if chosen in (Next.PREPARE, Next.DEPART, Next.COMMIT):
            if error.code not in PASSING | {"copy_unverified"}:
                self._call_back(error)
            return
        if chosen is Next.RECLAIM and isinstance(error, Refusal) and error.code not in PASSING:
            # The source is not as it was; what an operator said is about what was.
            self.will = replace(self.will, keep=None)
        if chosen not in (Next.BACK, Next.SETTLE) or error.code in PASSING:
            return
        if error.code == "move_committed":
            self.will = replace(self.will, back=False)
            return
        self._failing = now if self._failing is None else self._failing
        if now - self._failing >= REST_SECONDS and not self.will.rest:
            log.error("moved vm not started", vm=self.intent.id, code=error.code, error=str(error))
            self.problem = self.problem or error
            self.will = replace(self.will, rest=True)
