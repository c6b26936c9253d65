"""Does what the agent is asked: each operation on a thread of its own, admitted under the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, assert_never

from ppn.errors import PpnError
from ppn.host.agent.drives import DriveAttachment, Place, detach_drive
from ppn.host.agent.first_output import FirstOutput, file_size
from ppn.host.agent.inspection import inspect
from ppn.host.agent.moving import Moves
from ppn.host.agent.policy import unknown, wanted
from ppn.host.agent.recovery import Repair, Task
from ppn.host.agent.report import changed, told, vm_report
from ppn.host.agent.settings import AgentSettings
from ppn.host.agent.settling import Settling
from ppn.host.agent.table import LockTable
from ppn.host.agent.timeline import Recorder, Timelines
from ppn.host.apply import Admitted, Outcome, carry_out, prepare
from ppn.host.backend import Backend
from ppn.host.detach import prepare_detach
from ppn.host.enforce import balloon_through, enforce_through, put_weight_right
from ppn.host.examination import examine
from ppn.host.execute import as_errors, sweep_vm
from ppn.host.forecast import with_buffer, with_in_flight, with_pins
from ppn.host.kvm import ensure_verdict
from ppn.host.model import NodeState, Pins
from ppn.host.numa import choose_pins
from ppn.host.paths import Paths
from ppn.host.plan import Action, ActionKind
from ppn.host.settle import Clock, attach_settled, settles
from ppn.host.state import read_boot_id, read_state, state_through
from ppn.log import get_logger
from ppn.wire.agent import (
    Apply,
    AttachNvme,
    Balloon,
    Change,
    Console,
    Delivery,
    Detach,
    DetachNvme,
    Enforce,
    Examine,
    Inspect,
    ListVms,
    OneVm,
    Operation,
    ProbeKvm,
    Question,
    ShowConsole,
    ShowNode,
    ShowTimeline,
    ShowVm,
    Spawn,
    VmList,
)
from ppn.wire.frames import MAX_FRAME_BYTES
from ppn.wire.moving import Depart, MoveStep, PrepareArrival, ShowMove

LOOK_SECONDS = 10.0
RECOVERY = "recovery: "
TAKEN_BACK = RECOVERY + Repair.TAKE_BACK
# No VM can be called so: operations on the whole node.
WHOLE_NODE = "(node)"
NODE_WIDE = ListVms | ShowNode | Examine | Enforce | ProbeKvm
# A control character takes six bytes in JSON.
CONSOLE_BYTES = MAX_FRAME_BYTES // 2

# Who serves the operations of one node alone.
ALONE = AgentSettings(node="alone")

log = get_logger("host-agent")

Admit = Callable[[NodeState], Admitted]
Report = Callable[[], dict[str, Any]]


def vm_of(body: Operation) -> str:
    """The VM an operation is about; empty for one about the node."""
    if isinstance(body, Spawn | Apply):
        return body.vm.name
    return "" if isinstance(body, NODE_WIDE) else body.vm


class Service:
    """What the agent can do; every method blocks until it is done.

    Args:
        paths: the node's files.
        on_change: told when what the node holds has changed; on any thread.
        report: the answer to `node`.
        uri: libvirt's connection name; the environment's or the system's when None.
        settings: of the agent; VMs move between nodes that have certificates.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        on_change: Callable[[], None],
        report: Report,
        uri: str | None = None,
        settings: AgentSettings = ALONE,
    ) -> None:
        self.paths = paths
        self.table = LockTable()
        self.uri = uri
        self.on_change = on_change
        self.timelines = Timelines(paths)
        self.settling = Settling(on_change, uri)
        self.moves = Moves(self, settings)
        self._first_output = FirstOutput()
        self._report = report

    def do(self, body: Operation, correlation_id: str) -> dict[str, Any]:
        """Do an operation and return its result.

        Raises:
            PpnError: refused or failed.
        """
        if isinstance(body, Question):
            return self._answer(body)
        if isinstance(body, Delivery):
            return self.moves.take(body)
        began = log.bind(
            correlation_id=correlation_id, operation=body.operation, vm=vm_of(body) or None
        )
        began.info("operation begins")
        try:
            result = self._change(body, correlation_id)
        except PpnError as error:
            began.warning("operation failed", code=error.code, error=str(error))
            raise
        began.info("operation done", changed=result.get("changed"))
        return result

    def repair(self, task: Task, now: Callable[[NodeState], Task | None]) -> None:
        """Put a VM in order that an earlier agent or boot left behind.

        Args:
            task: what seemed to be needed.
            now: what is needed still, judged on the node as it is once the VM is ours.

        Raises:
            PpnError: refused or failed; the VM's timeline says why.
        """

        def admitted(node: NodeState) -> Admitted:
            still = now(node)
            if still is None:
                # It is in order by now.
                return Admitted(task.spec, node, lambda _: ())
            return prepare(still.spec, node)

        self._make(task.vm, f"{RECOVERY}{task.repair}", f"recovery-{task.vm}", admitted)

    def put_weight_right(self, vm: str) -> None:
        """Give a running VM the CPU weight of the ledger again (CPU-03).

        Raises:
            PpnError: another operation is changing the VM, or libvirt failed.
        """
        with self._alone(vm, "enforce", f"weight-{vm}") as backend:
            put_weight_right(vm, self.paths, backend)

    def _answer(self, body: Question) -> dict[str, Any]:
        match body:
            case ListVms():
                settling = self.settling.vms()
                vms = tuple(vm_report(vm, settling) for vm in self.look().vms)
                return VmList(vms=vms).model_dump(mode="json")
            case ShowVm():
                return self._show(body.vm)
            case ShowNode():
                return self._report()
            case ShowTimeline():
                return self.timelines.read(body.vm).model_dump(mode="json")
            case ShowConsole():
                return self._console(body.vm, body.bytes)
            case Inspect():
                return inspect(self.paths, body.vm, self.uri).model_dump(mode="json")
            case Examine():
                return examine(self.paths).model_dump(mode="json")
            case ShowMove():
                return self.moves.view(body.vm).model_dump(mode="json")
            case _:
                assert_never(body)

    def _change(
        self, body: Change | Apply | Enforce | Balloon | ProbeKvm, correlation_id: str
    ) -> dict[str, Any]:
        match body:
            case Apply():
                spec = body.vm
                outcome = self._make(
                    spec.name, "apply", correlation_id, lambda node: prepare(spec, node)
                )
                return outcome.as_dict()
            case Detach():
                outcome = self._make(
                    body.vm,
                    body.operation,
                    correlation_id,
                    lambda node: prepare_detach(body.vm, body.disk, node, discard=body.discard),
                )
                return changed(outcome, self.settling.vms())
            case AttachNvme() | DetachNvme():
                return self._move_drive(body, correlation_id)
            case PrepareArrival() | Depart() | MoveStep():
                return self.moves.do(body, correlation_id)
            case Enforce():
                with self._alone(WHOLE_NODE, body.operation, correlation_id) as backend:
                    return enforce_through(self.paths, backend).as_dict()
            case Balloon():
                with self._alone(body.vm, body.operation, correlation_id) as backend:
                    return balloon_through(body.vm, body.mib, self.paths, backend).as_dict()
            case ProbeKvm():
                with self.table.operation(WHOLE_NODE, body.operation, correlation_id):
                    boot_id = read_boot_id(self.paths)
                    probed, verdict = ensure_verdict(self.paths, boot_id, again=body.again)
                    return {"changed": probed, **verdict.model_dump()}
            case _:
                outcome = self._make(
                    vm_of(body),
                    body.operation,
                    correlation_id,
                    lambda node: prepare(wanted(body, node), node),
                )
                return changed(outcome, self.settling.vms())

    @contextmanager
    def _alone(self, vm: str, operation: str, correlation_id: str) -> Iterator[Backend]:
        """A connection to libvirt while nobody else changes this VM; told to all at the end."""
        with (
            self.noticed(),
            self.table.operation(vm, operation, correlation_id),
            Backend(self.uri) as backend,
        ):
            yield backend

    def _make(self, vm: str, operation: str, correlation_id: str, admitted: Admit) -> Outcome:
        """Make a VM what the node's present state says it shall be (HOST-12, HOST-16)."""
        with self.noticed(), self.table.operation(vm, operation, correlation_id):
            with self.timelines.recording(vm, operation, correlation_id) as recorder:
                outcome = self.converge(vm, operation, admitted, recorder)
            # Of a VM that was taken back it is still to be told why.
            if outcome.vm is None and operation != TAKEN_BACK:
                self.timelines.forget(vm)
            return outcome

    def _move_drive(self, body: AttachNvme | DetachNvme, correlation_id: str) -> dict[str, Any]:
        """Give a VM a drive, or take it back; nothing else of the VM changes (DISK-02)."""
        vm, address = body.vm, body.address
        with (
            self._alone(vm, body.operation, correlation_id) as backend,
            self.timelines.recording(vm, body.operation, correlation_id) as recorder,
            as_errors(f"{body.operation} {address} of vm {vm}"),
        ):
            place = Place(vm, address, self.paths, backend, lambda: self.with_others(vm, backend))
            actions: tuple[str, ...] = ()
            if isinstance(body, DetachNvme):
                recorder.step("detach")
                detach_drive(place)
                actions = (f"detach drive {address} from vm {vm}",)
            else:
                attachment = DriveAttachment(place, self.table, self.settling, recorder.step)
                attach_settled(attachment, Clock(time.monotonic, time.sleep))
                actions = (f"attach drive {address} to vm {vm}",) if attachment.changed else ()
            now = state_through(self.paths, backend).vm(vm)
            return told(actions, now, self.settling.vms())

    def with_others(self, vm: str, backend: Backend) -> NodeState:
        """The node as it is, with what operations on other VMs will take counted as taken."""
        # Listed before the node is read: what ends meanwhile is seen there or counted here.
        others = [other for other in self.table.in_flight() if other.name != vm]
        kept_mib = self.table.kept_mib(besides=vm)
        seen = state_through(self.paths, backend)
        return with_buffer(with_in_flight(seen, others), kept_mib)

    def converge(self, vm: str, operation: str, admitted: Admit, recorder: Recorder) -> Outcome:
        """Make a VM what the node's present state says it shall be, within an operation on it.

        Args:
            vm: its name.
            operation: its name, for errors.
            admitted: judges the node as it is.
            recorder: told of each step.

        Raises:
            PpnError: refused or failed.
        """
        recorder.step("admit")
        with as_errors(f"{operation} vm {vm}"), Backend(self.uri) as backend:
            sweep_vm(self.paths, vm)
            work = self._choose(self._admit(vm, admitted, backend))
            # From now on it is counted, and a heartbeat may say so.
            self.on_change()
            return self._carry_out(work, backend, recorder)

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Tell all at the end of the block that something may have changed."""
        try:
            yield
        finally:
            self.on_change()

    def _admit(self, vm: str, admitted: Admit, backend: Backend) -> Admitted:
        """The first section: the node's sums."""
        with self.table.aggregate.held():
            # Listed before the node is read: what ends meanwhile is seen there or counted here.
            others = [other for other in self.table.in_flight() if other.name != vm]
            kept_mib = self.table.kept_mib(besides=vm)
            busy = {going.vm for going in self.table.going()} - {vm}
            seen = state_through(self.paths, backend)
            work = admitted(with_buffer(with_in_flight(seen, others), kept_mib))
            self.table.learn(held_cpus(seen), busy)
            self.table.reserve(vm, work.spec)
            return work

    def _choose(self, work: Admitted) -> Admitted:
        """The second section: which CPUs; the execution comes to the same on the same node."""
        vm = work.spec.name
        with self.table.detailed.held():
            node = with_pins(work.node, self.table.details(), vm)
            if work.spec.state != "absent":
                self.table.claim(vm, choose_pins(work.spec, node))
        return replace(work, node=node)

    def _carry_out(self, work: Admitted, backend: Backend, recorder: Recorder) -> Outcome:
        serial = self.paths.vm(work.spec.name).serial_log
        before = file_size(serial)

        def on_step(action: Action) -> None:
            recorder.step(f"{action.kind}:{action.disk}" if action.disk else action.kind)

        outcome = carry_out(work, self.paths, backend, on_step=on_step)
        if any(action.kind is ActionKind.START for action in outcome.actions):
            self._first_output.expect(serial, before, recorder.guest_ran)
            if settles(work.spec):
                self.settling.begin(work.spec.name)
        return outcome

    def look(self) -> NodeState:
        """The node as it is now.

        Raises:
            PpnError: the node cannot be read.
        """
        return read_state(self.paths, self.uri, deadline=LOOK_SECONDS)

    def _show(self, vm: str) -> dict[str, Any]:
        view = self.look().vm(vm)
        if view is not None:
            return OneVm(vm=vm_report(view, self.settling.vms())).model_dump(mode="json")
        last = self.timelines.last(vm)
        raise unknown(
            vm,
            f"its last operation, {last.operation}, is {last.outcome}: {last.message}"
            if last is not None and last.message
            else "",
        )

    def _console(self, vm: str, size: int) -> dict[str, Any]:
        files = self.paths.vm(vm)
        if not files.known:
            raise unknown(vm)
        whole = file_size(files.serial_log)
        text = b""
        if whole:
            with files.serial_log.open("rb") as serial:
                serial.seek(max(whole - size, 0))
                text = serial.read(size)
        console = Console(vm=vm, text=text.decode(errors="replace"), size_bytes=whole)
        while len(console.model_dump_json()) > CONSOLE_BYTES:
            half = console.text[len(console.text) // 2 :]
            console = console.model_copy(update={"text": half})
        return console.model_dump(mode="json")


def held_cpus(node: NodeState) -> dict[str, Pins]:
    """Which CPUs each VM of a node holds."""
    return {vm.name: vm.pinning.wanted for vm in node.vms if vm.pinning.wanted is not None}
