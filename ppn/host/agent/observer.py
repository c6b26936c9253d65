"""Looks at the node again and again: what to tell, what is wrong, what to put in order."""

from __future__ import annotations

import threading
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ppn.durable import write_atomic
from ppn.errors import PpnError
from ppn.host.agent.alerts import Look, alerts
from ppn.host.agent.processes import strange_qemus
from ppn.host.agent.recovery import AGAIN_SECONDS, REASONS, Task, Tries, tasks
from ppn.host.agent.report import heartbeat
from ppn.host.agent.service import LOOK_SECONDS, Service
from ppn.host.agent.tickets import Tickets
from ppn.host.bridge import network_change
from ppn.host.enforce import weights_astray
from ppn.host.execute import as_errors, sweep
from ppn.host.forecast import with_buffer
from ppn.host.kvm import ensure_verdict
from ppn.host.model import NodeState
from ppn.host.moving.stuck import stuck
from ppn.host.state import read_boot_id, read_state
from ppn.log import get_logger
from ppn.wire.agent import AgentReport
from ppn.wire.heartbeat import Alert, Heartbeat

# Each costs a reading of the node.
MOST_WEIGHTS = 16

log = get_logger("host-agent")


class LastBoot(BaseModel):
    """The boot in which an agent last put the node in order."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    boot_id: str


class Observer:
    """One agent's eyes; one look at a time.

    Args:
        service: what puts things in order, with the table of what is in flight.
        tickets: whose session the heartbeats name.
        node: this node's name.
        uri: libvirt's connection name; the environment's or the system's when None.
    """

    def __init__(
        self, service: Service, tickets: Tickets, node: str, uri: str | None = None
    ) -> None:
        self._service = service
        self._tickets = tickets
        self._node = node
        self._uri = uri
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._before: Look | None = None
        self._alerts: tuple[Alert, ...] = ()
        self._sequence = 0
        self._unfinished: dict[str, str] = {}
        self._tries = Tries()
        self._weighed: dict[str, float] = {}
        self._seen = False
        self._found: dict[str, str | None] | None = None
        self._boot_id = read_boot_id(service.paths)
        self._rebooted = True

    def prepare(self) -> None:
        """Close what earlier agents left open, and put the node in order as far as can be.

        Raises:
            PpnError: the node's settings or hardware cannot be read, or a file not written.
        """
        with as_errors("clear up after earlier agents"):
            sweep(self._service.paths)
            self._service.timelines.prune()
        self._restore_network()
        self._unfinished = self._service.timelines.cut_short()
        self._rebooted = self._last_boot() != self._boot_id
        log.info("puts the node in order", rebooted=self._rebooted, cut_short=self._unfinished)
        ensure_verdict(self._service.paths, self._boot_id)
        self.look()

    def _restore_network(self) -> None:
        """Close what an agent that was killed opened for a VM it never made."""
        try:
            with as_errors("restore the network"), network_change(self._service.paths) as change:
                change.restore()
        except PpnError as error:
            # VMs without a change of theirs need nothing; each start tries again, and says so.
            log.error("the VMs' network is not in force", code=error.code, error=str(error))

    def look(self) -> Heartbeat:
        """What to tell the controllers now, after putting in order what has to be.

        Raises:
            PpnError: the node's settings or hardware cannot be read.
        """
        with self._lock:
            look = self._take()
            done = self._put_in_order(look)
            if self._put_weights_right(look) or done:
                look = self._take()
            self._judge(look)
            return self._heartbeat(look)

    def report(self) -> dict[str, Any]:
        """The answer to `node`: a look of its own, so that it is never old."""
        table = self._service.table
        # Without the lock: to put the node in order takes as long as its VMs take to start.
        node = self._heartbeat(self._take())
        report = AgentReport(node=node, operations=table.going(), holds=table.aggregate.holds)
        return report.model_dump(mode="json")

    def _take(self) -> Look:
        table = self._service.table
        mark = table.mark()
        busy = table.changed_since(mark)
        # Listed before the node is read: what ends meanwhile is seen there or counted here.
        in_flight, kept_mib = table.in_flight(), table.kept_mib()
        with as_errors("read the node"):
            seen = read_state(self._service.paths, self._uri, deadline=LOOK_SECONDS)
            node, strange = with_buffer(seen, kept_mib), strange_qemus(self._service.paths)
        late = stuck(self._service.paths, node.vms, time.time())
        return Look(node, busy | table.changed_since(mark), strange, in_flight, late)

    def _judge(self, look: Look) -> None:
        found = alerts(look, self._before, self._alerts)
        known = {(alert.code, alert.subject) for alert in self._alerts}
        for alert in found:
            if (alert.code, alert.subject) not in known:
                log.warning("alert raised", **alert.model_dump())
        still = {(alert.code, alert.subject) for alert in found}
        for alert in self._alerts:
            if (alert.code, alert.subject) not in still:
                log.info("alert cleared", code=alert.code, subject=alert.subject)
        self._before, self._alerts = look, found

    def _heartbeat(self, look: Look) -> Heartbeat:
        with self._telling:
            self._sequence += 1
            sequence = self._sequence
        return heartbeat(
            look.node,
            name=self._node,
            session=self._tickets.session,
            sequence=sequence,
            in_flight=look.in_flight,
            alerts=self._alerts,
            settling=self._service.settling.vms(),
        )

    def _tasks(self, node: NodeState, busy: frozenset[str]) -> tuple[Task, ...]:
        return tasks(
            node,
            rebooted=self._rebooted,
            unfinished=self._unfinished,
            busy=busy,
            owed=self._tries.owed if self._seen else self._found,
        )

    def _put_in_order(self, look: Look) -> bool:
        """Do what has to be done; what ran before is asked again only for a VM that failed."""
        if self._found is None:
            # libvirt may come late, and by then a VM can have been made anew under its name.
            self._found = {vm.name: vm.uuid for vm in look.node.vms}
        wanted = self._tasks(look.node, look.busy)
        if look.node.libvirt.ok:
            self._tries.forget_all_but({task.vm for task in wanted} | look.busy)
        resting = self._tries.resting(time.monotonic())
        found = [task for task in wanted if task.vm not in resting]
        for task in found:
            if self._repair(task):
                self._tries.done(task.vm)
            else:
                vm = look.node.vm(task.vm)
                self._tries.failed(task.vm, vm.uuid if vm is not None else None, time.monotonic())
        if look.node.libvirt.ok:
            self._seen = True
            if not self._tries.owed:
                self._unfinished = {}
                self._remember_boot()
        return bool(found)

    def _put_weights_right(self, look: Look) -> bool:
        """Let CPU weights follow the ledger, also one that was changed by hand (CPU-03).

        A few at each look, and none of a VM again at once: whoever else writes it is not raced.
        """
        now = time.monotonic()
        self._weighed = {vm: at for vm, at in self._weighed.items() if now - at < AGAIN_SECONDS}
        apart = look.busy | self._weighed.keys()
        found = [one for one in weights_astray(look.node) if one.vm not in apart][:MOST_WEIGHTS]
        for one in found:
            self._weighed[one.vm] = now
            try:
                self._service.put_weight_right(one.vm)
            except PpnError as error:
                log.error("weight not put right", vm=one.vm, code=error.code, error=str(error))
            else:
                log.warning("weight put right", vm=one.vm, was=one.actual, weight=one.wanted)
        return bool(found)

    def _repair(self, task: Task) -> bool:
        def still(node: NodeState) -> Task | None:
            vms = self._tasks(node, frozenset())
            return next((other for other in vms if other.vm == task.vm), None)

        bound = log.bind(vm=task.vm, repair=task.repair.value, reason=REASONS[task.repair])
        try:
            self._service.repair(task, still)
        except PpnError as error:
            bound.error("vm not put in order", code=error.code, error=str(error))
            return False
        bound.info("vm put in order")
        return True

    def _last_boot(self) -> str:
        try:
            content = self._service.paths.agent_boot.read_bytes()
            return LastBoot.model_validate_json(content).boot_id
        except (OSError, ValidationError):
            return ""

    def _remember_boot(self) -> None:
        if not self._rebooted:
            return
        path = self._service.paths.agent_boot
        with as_errors("remember the boot"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, LastBoot(boot_id=self._boot_id).model_dump_json().encode())
        self._rebooted = False
