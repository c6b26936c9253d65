"""VMs that leave this node: stopped, copied and sent by a thread of their own (MIG-01)."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ppn.errors import PpnError
from ppn.host.agent.policy import unknown
from ppn.host.agent.settings import AgentSettings
from ppn.host.agent.timeline import Recorder
from ppn.host.apply import prepare
from ppn.host.backend import Backend
from ppn.host.execute import GRACE_SECONDS, as_errors, remove_folder
from ppn.host.model import IN_TRANSIT
from ppn.host.moving import policy
from ppn.host.moving.copies import check_room, copied_bytes, make_copies
from ppn.host.sidecar import Sidecar, read_sidecar, write_sidecar
from ppn.log import get_logger
from ppn.wire.moving import Depart, MoveStep, MoveView, Stage
from ppn.wire.problems import problem_of

if TYPE_CHECKING:
    from ppn.host.agent.service import Service
    from ppn.host.moving.sending import Target

# What is sent just now is answered, or given up, first.
CALL_BACK_SECONDS = 25.0
# Tickets of an earlier session are refused, so that this need not outlive the agent.
MOST_OVER = 4096

log = get_logger("host-agent")


class CalledBack(PpnError):
    """The move is given up while this node is at it."""

    code = "move_called_back"


@dataclass
class Job:
    """One VM's way out, as far as this agent has brought it.

    Args:
        target: where it goes.
        stage: what is done now, or was done last.
        active: whether something is done now.
        done, total: bytes of the present stage.
        problem: why it ended before its time.
    """

    target: Target
    stage: Stage = "stopping"
    active: bool = True
    done: int = 0
    total: int = 0
    problem: PpnError | None = None
    ending: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(default_factory=threading.Thread)

    def check(self) -> None:
        """Go on, or end here.

        Raises:
            CalledBack: the move is given up.
        """
        if self.ending.is_set():
            raise CalledBack(f"the move of vm {self.target.vm} is called back")

    def advance(self, done: int) -> None:
        """Note how many bytes of the present stage are done."""
        self.done = done


class Departures:
    """What this node does as the source of moves.

    Args:
        service: the agent's own.
        settings: of the agent.
    """

    def __init__(self, service: Service, settings: AgentSettings) -> None:
        self._service = service
        self._settings = settings
        self._jobs: dict[str, Job] = {}
        self._over: OrderedDict[str, None] = OrderedDict()

    def depart(self, body: Depart, correlation_id: str) -> None:
        """Begin to send a VM, or go on with it; the work itself goes on after this returns.

        Raises:
            Refusal: the VM does not move, or is in another move.
            PpnError: the node cannot be read.
        """
        if self._is_at_work(body):
            return
        service, job = self._service, None
        with service.noticed(), service.table.operation(body.vm, "depart", correlation_id):
            sidecar = self._sidecar(body.vm)
            begun = policy.departing(sidecar, body.move, body.node)
            if begun != sidecar:
                if body.move in self._over:
                    # Another move of this VM has come since, so that its sidecar does not say so.
                    raise policy.ended(sidecar, body.move)
                self._admit(body.vm)
                # Copies of an earlier move, left by a kill, are not this VM as it is now.
                shutil.rmtree(service.paths.vm(body.vm).moving, ignore_errors=True)
                write_sidecar(service.paths.vm(body.vm).sidecar, begun)
            if begun.phase == "moving" and not self._is_at_work(body):
                # Known before another one may ask for the same: two would send it side by side.
                job = self._jobs[body.vm] = self._job(body, correlation_id)
        if job is not None:
            job.thread.start()

    def commit(self, body: MoveStep, correlation_id: str) -> None:
        """Give a VM up for good, once its destination has verified all of it.

        Raises:
            Refusal: it is not in this move, or the destination has not told this agent so.
        """
        service = self._service
        with service.noticed(), service.table.operation(body.vm, "commit", correlation_id):
            sidecar = self._sidecar(body.vm)
            given_up = policy.committed(sidecar, body.move)
            if given_up != sidecar:
                job = self._jobs.get(body.vm)
                if job is None or (job.target.move, job.stage) != (body.move, "sent"):
                    raise policy.unverified(body.vm)
                write_sidecar(service.paths.vm(body.vm).sidecar, given_up)
            self._note_over(body.move)

    def back(self, body: MoveStep, correlation_id: str) -> None:
        """Keep a VM after all: it is as it was before, and that move never begins again.

        Raises:
            Refusal: it is given up for good, in another move, or busy still.
            PpnError: it could not be started again; asked again, that is tried again.
        """
        vm, service = body.vm, self._service
        self._end_job(vm, body.move)
        with service.noticed(), service.table.operation(vm, "back", correlation_id):
            sidecar = self._sidecar(vm)
            was_away = policy.stage_of(sidecar) != "here"
            self._keep(sidecar, policy.called_back(sidecar, body.move))
            self._note_over(body.move)
            if was_away:
                self._run_again(sidecar, "back", correlation_id)

    def reclaim(self, body: MoveStep, correlation_id: str) -> None:
        """Have a VM again that was given up: an operator says that its destination has nothing.

        Raises:
            Refusal: it was not given up in this move.
            PpnError: it could not be started again; `back` tries that again.
        """
        vm, service = body.vm, self._service
        with service.noticed(), service.table.operation(vm, "reclaim", correlation_id):
            sidecar = self._sidecar(vm)
            self._keep(sidecar, policy.reclaimed(sidecar, body.move))
            log.warning("vm is had again", vm=vm, move=body.move, correlation_id=correlation_id)
            self._run_again(sidecar, "reclaim", correlation_id)

    def release(self, body: MoveStep, correlation_id: str) -> None:
        """Remove what is left of a VM that another node has; done already, nothing.

        Raises:
            Refusal: it is not given up.
        """
        vm, service = body.vm, self._service
        with service.noticed(), service.table.operation(vm, "release", correlation_id):
            sidecar = read_sidecar(service.paths.vm(vm).sidecar)
            if sidecar is not None:
                policy.check_release(sidecar, body.move)
                with as_errors(f"remove what is left of vm {vm}"):
                    remove_folder(service.paths, vm)
            self._jobs.pop(vm, None)

    def view(self, sidecar: Sidecar, known: MoveView) -> MoveView:
        """How far a VM is that is leaving.

        Args:
            sidecar: of the VM.
            known: what its sidecar alone says.
        """
        job = self._jobs.get(known.vm)
        if sidecar.phase != "moving" or job is None or job.target.move != known.move:
            return known
        copying = job.stage == "copying"
        files = self._service.paths.vm(known.vm)
        return known.model_copy(
            update={
                "stage": job.stage,
                "active": job.active,
                # What is copied is read once more, to be known by its SHA-256.
                "bytes_done": job.done + copied_bytes(files) if copying else job.done,
                "bytes_total": job.total,
                "problem": problem_of(job.problem) if job.problem is not None else None,
            }
        )

    def finish(self) -> None:
        """End what is going on; it goes on when it is asked for again."""
        jobs = tuple(self._jobs.items())
        for _, job in jobs:
            job.ending.set()
        for vm, job in jobs:
            self._end_job(vm, job.target.move)

    def _is_at_work(self, body: Depart) -> bool:
        job = self._jobs.get(body.vm)
        return job is not None and job.active and job.target.move == body.move

    def _note_over(self, move: str) -> None:
        self._over[move] = None
        while len(self._over) > MOST_OVER:
            self._over.popitem(last=False)

    def _end_job(self, vm: str, move: str) -> None:
        """End the work of that move; a late word of an earlier one disturbs no other."""
        job = self._jobs.get(vm)
        if job is not None and job.target.move == move:
            job.ending.set()
            if job.thread.is_alive():
                job.thread.join(CALL_BACK_SECONDS)

    def _keep(self, sidecar: Sidecar, kept: Sidecar) -> None:
        """Write that a VM stays, with room for it from then on."""
        service, files = self._service, self._service.paths.vm(sidecar.spec.name)
        if kept != sidecar:
            if sidecar.phase in IN_TRANSIT:
                with service.table.aggregate.held():
                    service.table.reserve(kept.spec.name, kept.spec)
                shutil.rmtree(files.moving, ignore_errors=True)
            write_sidecar(files.sidecar, kept)
        self._jobs.pop(kept.spec.name, None)

    def _run_again(self, sidecar: Sidecar, operation: str, correlation_id: str) -> None:
        """Start a VM that stays, if it ran."""
        service, spec = self._service, sidecar.spec
        with service.timelines.recording(spec.name, operation, correlation_id) as recorder:
            service.converge(spec.name, operation, lambda node: prepare(spec, node), recorder)

    def _sidecar(self, vm: str) -> Sidecar:
        sidecar = read_sidecar(self._service.paths.vm(vm).sidecar)
        if sidecar is None:
            raise unknown(vm)
        return sidecar

    def _admit(self, vm: str) -> None:
        node = self._service.look()
        view = node.vm(vm)
        if view is None:
            raise unknown(vm)
        for refusal in policy.departure_refusals(view, node):
            raise refusal
        with as_errors(f"look at the disks of vm {vm}"):
            check_room(vm, self._service.paths.vm(vm), node.disk)

    def _job(self, body: Depart, correlation_id: str) -> Job:
        # Imported here: who never moves a VM needs no HTTP and no cryptography for it.
        from ppn.host.moving.sending import Target

        target = Target(
            vm=body.vm,
            move=body.move,
            node=body.node,
            address=body.address,
            port=body.port,
            secret=body.secret,
            correlation_id=correlation_id,
        )
        job = Job(target)
        job.thread = threading.Thread(
            target=self._run, args=(job,), daemon=True, name=f"move-{body.vm}"
        )
        return job

    def _run(self, job: Job) -> None:
        service, target = self._service, job.target
        bound = log.bind(vm=target.vm, move=target.move, correlation_id=target.correlation_id)
        job.problem = PpnError("it broke off", code="agent_failed", hint="see the agent's log")
        try:
            with (
                service.noticed(),
                service.table.operation(target.vm, "move", target.correlation_id),
                service.timelines.recording(target.vm, "move", target.correlation_id) as recorder,
                as_errors(f"move vm {target.vm}"),
            ):
                bound.info("vm is sent", node=target.node)
                self._work(job, recorder)
            job.problem = None
            bound.info("vm was sent", node=target.node)
        except PpnError as error:
            job.problem = error
            bound.warning("vm not sent", code=error.code, error=str(error))
        finally:
            job.active = False

    def _work(self, job: Job, recorder: Recorder) -> None:
        from ppn.host.moving.sending import Line, Sending

        service, vm = self._service, job.target.vm
        sidecar, files = self._sidecar(vm), service.paths.vm(vm)
        # It may have been called back before this thread began.
        policy.check_sending(sidecar, job.target.move)
        recorder.step("stop")
        with Backend(service.uri) as backend:
            if backend.has(vm):
                backend.stop(vm, grace=GRACE_SECONDS)
                backend.undefine(vm)
        service.on_change()
        job.check()
        job.stage = "copying"
        recorder.step("copy")
        manifest = make_copies(files, sidecar, job.check, job.advance)
        job.total = sum(copy.bytes for copy in manifest.copies)
        job.stage, job.done = "sending", 0
        recorder.step("send")
        local = service.look().settings.mesh_address
        line = Line(job.target, self._settings.node, self._settings.tls(), local)
        with closing(line):
            Sending(line, job.target, files, manifest, job.advance, job.check).run()
        job.stage, job.done = "sent", job.total
