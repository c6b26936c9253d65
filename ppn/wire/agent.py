"""What the host agent is asked and what it answers, one frame each.

The node proxy turns HTTP into these and back; `ppn host` on the node speaks them itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ppn.host.spec import DISK_PATTERN, Disk, VmSpec
from ppn.wire.heartbeat import MANY, Heartbeat, VmReport
from ppn.wire.model import CorrelationId, NodeName, PciAddress, VmId, VmUuid, Wire
from ppn.wire.moving import Deliver, Depart, Greet, MoveStep, PrepareArrival, ShowMove
from ppn.wire.problems import ProblemBody


class Ticket(Wire):
    """Says that a controller decided for this very node; good once (HOST-02).

    Args:
        node: the node it is for.
        session: the agent's session the controller last heard of; another one refuses it.
        nonce: 32 hex digits, never used before in that session.
    """

    node: NodeName
    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")


class Spawn(Wire):
    """Make a VM and start it (a spec with state `running`), or find it made so already."""

    operation: Literal["spawn"] = "spawn"
    vm: VmSpec


class Destroy(Wire):
    """Stop a VM and remove all it had; success when nothing is left, also when nothing was.

    Args:
        uuid: the one that is meant; another one of that id stays, and the answer is a refusal.
    """

    operation: Literal["destroy"] = "destroy"
    vm: VmId
    uuid: VmUuid | None = None


class Stop(Wire):
    """Stop a VM by its power button, and by force when it has not obeyed in time."""

    operation: Literal["stop"] = "stop"
    vm: VmId


class Start(Wire):
    """Start a VM that was stopped."""

    operation: Literal["start"] = "start"
    vm: VmId


class Resize(Wire):
    """Give a stopped VM other memory (MiB) or vCPUs; None leaves a figure as it is."""

    operation: Literal["resize"] = "resize"
    vm: VmId
    memory_mib: int | None = Field(default=None, ge=64, le=64 * 1024 * 1024)
    vcpus: int | None = Field(default=None, ge=1, le=512)


class Attach(Wire):
    """Give a VM one more disk, also while it runs (DISK-01)."""

    operation: Literal["attach"] = "attach"
    vm: VmId
    disk: Disk


class Detach(Wire):
    """Take a disk from a VM, also while it runs; `discard` removes its data too (DISK-01)."""

    operation: Literal["detach"] = "detach"
    vm: VmId
    disk: str = Field(pattern=DISK_PATTERN)
    discard: bool = False


class AttachNvme(Wire):
    """Give a running VM a whole NVMe drive of the node, for good; see `DetachNvme` (DISK-02)."""

    operation: Literal["attach_nvme"] = "attach_nvme"
    vm: VmId
    address: PciAddress


class DetachNvme(Wire):
    """Take an NVMe drive from a VM, also while it runs, and give it back to the node (DISK-02)."""

    operation: Literal["detach_nvme"] = "detach_nvme"
    vm: VmId
    address: PciAddress


class ListVms(Wire):
    """Every VM of the node."""

    operation: Literal["list"] = "list"


class ShowVm(Wire):
    """One VM of the node."""

    operation: Literal["show"] = "show"
    vm: VmId


class ShowNode(Wire):
    """The node: settings, pool, topology, KVM, disks, images, and what is not as it should be."""

    operation: Literal["node"] = "node"


class ShowTimeline(Wire):
    """The steps of a VM's last operations with their times."""

    operation: Literal["timeline"] = "timeline"
    vm: VmId


class ShowConsole(Wire):
    """The end of what a guest wrote to its serial console."""

    operation: Literal["console"] = "console"
    vm: VmId
    bytes: int = Field(default=65536, ge=1, le=1024 * 1024)


class Inspect(Wire):
    """What a VM is made of: record, domain, QEMU; for controllers and root alone (CLI-03)."""

    operation: Literal["inspect"] = "inspect"
    vm: VmId


class Examine(Wire):
    """The node beyond its VMs: services, mesh, clock; for controllers and root alone (CLI-03)."""

    operation: Literal["examine"] = "examine"


class Apply(Wire):
    """Make a VM what its spec says: the operator's way in, for root on the node alone."""

    operation: Literal["apply"] = "apply"
    vm: VmSpec


class Enforce(Wire):
    """Put the ledger's weights and minimums in force; for root on the node alone (FLEET-21)."""

    operation: Literal["enforce"] = "enforce"


class Balloon(Wire):
    """Move a guest's balloon; for root on the node alone (FLEET-21)."""

    operation: Literal["balloon"] = "balloon"
    vm: VmId
    mib: int = Field(ge=1, le=64 * 1024 * 1024)


class ProbeKvm(Wire):
    """Find out whether KVM is usable; for root on the node alone."""

    operation: Literal["probe_kvm"] = "probe_kvm"
    again: bool = False


# What changes a VM, and is taken from the node proxy with a ticket only.
Moving = PrepareArrival | Depart | MoveStep
Change = (
    Spawn | Destroy | Stop | Start | Resize | Attach | Detach | AttachNvme | DetachNvme | Moving
)
Question = ListVms | ShowVm | ShowNode | ShowTimeline | ShowConsole | Inspect | Examine | ShowMove
# An operator's certificate may ask the others.
ControllersOnly = Inspect | Examine
# What another node's agent sends while a VM moves; it shows the destination's secret.
Delivery = Greet | Deliver
RootOnly = Apply | Enforce | Balloon | ProbeKvm
Operation = Annotated[Change | Question | Delivery | RootOnly, Field(discriminator="operation")]


class Changed(Wire):
    """The result of a change.

    Args:
        changed: something differed and was put right.
        actions: the steps taken, in words.
        vm: the VM as it is now; None when it is gone.
        warnings: what went another way than wanted, in words.
    """

    changed: bool
    actions: Annotated[tuple[str, ...], MANY] = ()
    vm: VmReport | None = None
    warnings: Annotated[tuple[str, ...], MANY] = ()


class VmList(Wire):
    """The result of `list`."""

    vms: Annotated[tuple[VmReport, ...], MANY]


class OneVm(Wire):
    """The result of `show`."""

    vm: VmReport


class Step(Wire):
    """A step of an operation: when it began, counted from the operation's begin, and how long."""

    name: str
    at_seconds: float
    seconds: float | None = None


class OperationRecord(Wire):
    """An operation on a VM with the times of its steps.

    Args:
        began: RFC 3339 in UTC.
        outcome: `cut_short` when the agent ended before the operation did.
        code: of the error it failed with.
        message: what happened, in words.
    """

    operation: str
    correlation_id: str
    began: str
    outcome: Literal["going", "done", "failed", "cut_short"] = "going"
    code: str = ""
    message: str = ""
    steps: Annotated[tuple[Step, ...], MANY] = ()


class Timeline(Wire):
    """The result of `timeline`: a VM's last operations, the oldest first."""

    vm: VmId
    operations: Annotated[tuple[OperationRecord, ...], MANY] = ()


class Console(Wire):
    """The result of `console`: the end of a guest's serial output, of `size_bytes` in all."""

    vm: VmId
    text: str
    size_bytes: int


class Going(Wire):
    """An operation in flight: its VM, what it does, and for how long already."""

    vm: str
    operation: str
    correlation_id: str
    seconds: float


class Holds(Wire):
    """How long the aggregate section of the lock table was held (HOST-19)."""

    count: int
    mean_seconds: float
    longest_seconds: float


class AgentReport(Wire):
    """The result of `node`: what a heartbeat says, and what the agent is doing."""

    node: Heartbeat
    operations: Annotated[tuple[Going, ...], MANY] = ()
    holds: Holds


class Request(Wire):
    """One request to the agent.

    Args:
        version: of this contract.
        correlation_id: of the request that led to this one.
        ticket: for a change that comes through the node proxy.
        deadline_seconds: after which the caller no longer waits; the work itself goes on.
        body: what is asked.
    """

    version: Literal[1] = 1
    correlation_id: CorrelationId
    ticket: Ticket | None = None
    deadline_seconds: float = Field(default=300.0, gt=0, le=3600)
    body: Operation


class Response(BaseModel):
    """One answer of the agent: a result or a problem, never both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    correlation_id: str = ""
    result: dict[str, Any] | None = None
    problem: ProblemBody | None = None
