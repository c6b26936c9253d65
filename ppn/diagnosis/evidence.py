"""What was found out, and each single thing it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ppn.errors import PpnError, Refusal
from ppn.wire.agent import AgentReport, Timeline
from ppn.wire.diagnosis import Examination, Inspection
from ppn.wire.fleet import Decision, NodeReport, PlacedVm
from ppn.wire.heartbeat import Alert
from ppn.wire.problems import NodeRefusal

Source = Literal["answer", "placement", "operation", "alert", "qemu", "console"]
# Alerts of the node itself; the others are about the VM or thing they name.
NODE_ALERTS = frozenset({"image_damaged", "ledger_unusable", "libvirt_down", "network_down"})
NEW_RUN = "starting up libvirt version"


@dataclass(frozen=True)
class Statement:
    """One thing that something says is wrong.

    Args:
        source: what kind of thing says it.
        who: who says it, in words.
        code: stable, where there is one.
        text: what is said.
        node: the node it is about; empty when it is about none.
        hint: the next step it names itself.
    """

    source: Source
    who: str
    code: str
    text: str
    node: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.who}: {self.text}" + (f" ({self.code})" if self.code else "")


@dataclass(frozen=True)
class Trouble:
    """A question that was not answered as it should be.

    Args:
        who: was asked, in words.
        error: what came of it.
        node: the node it was about; empty when it was about none.
    """

    who: str
    error: PpnError
    node: str = ""


@dataclass(frozen=True)
class Evidence:
    """Everything that was found out for one question; what is not known is None or empty.

    Args:
        subject: the VM or the node it is about.
        vm: whether it is about a VM.
        now: the clock of the machine that asked, seconds since 1970.
        version: of the program that asked.
        troubles: questions that were not answered.
        placed: the VM where it is.
        decision: the controller's last on it.
        timeline: of the VM.
        inspection: of the VM.
        console: the end of what the guest wrote.
        node: the VM's node, or the node, as the controller sees it.
        report: the same node as its agent sees it now.
        examination: the same node beyond its VMs.
        alerts: of the pool as a whole.
        quota: of the tenant who asks: what is used and what may be, by what is counted.
    """

    subject: str
    vm: bool
    now: float
    version: str = ""
    troubles: tuple[Trouble, ...] = ()
    placed: PlacedVm | None = None
    decision: Decision | None = None
    timeline: Timeline | None = None
    inspection: Inspection | None = None
    console: str = field(default="", repr=False)
    node: NodeReport | None = None
    report: AgentReport | None = None
    examination: Examination | None = None
    alerts: tuple[Alert, ...] = ()
    quota: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def node_name(self) -> str:
        """The node it is about; empty when none is known."""
        if not self.vm:
            return self.subject
        if self.placed is not None:
            return self.placed.node
        if self.decision is not None and self.decision.tried:
            return self.decision.tried[-1]
        return ""


def statements(evidence: Evidence) -> Iterator[Statement]:
    """Everything that is said to be wrong, the nearest to the cause first."""
    for trouble in evidence.troubles:
        yield said(trouble)
    yield from _placement(evidence)
    yield from _operation(evidence)
    yield from _alerts(evidence)
    yield from _qemu(evidence)
    for line in evidence.console.splitlines():
        yield Statement("console", "the guest's console", "", line.strip(), evidence.node_name)
    node = evidence.node_name
    if evidence.inspection is not None:
        for one in evidence.inspection.unread:
            yield Statement("answer", f"{one.what} of {node}", one.code, one.message, node)


def said(trouble: Trouble) -> Statement:
    """A failed question as a statement, with the numbers a refusal has."""
    error, text = trouble.error, trouble.error.message
    if isinstance(error, Refusal) and error.wanted is not None:
        text += f" [wanted {error.wanted}, free {error.free} {error.unit}]"
    return Statement("answer", trouble.who, error.code, text, trouble.node, error.hint)


def _placement(evidence: Evidence) -> Iterator[Statement]:
    """Why a VM went nowhere; where it was placed, that others were refused is no fault."""
    decision = evidence.decision
    if decision is None or decision.problem is None:
        return
    problem = decision.problem
    if problem.code != "no_capacity":
        yield Statement(
            "placement", "the controller", problem.code, problem.detail, hint=problem.hint
        )
        return
    for refusal in decision.refused:
        text = refusal.message + _numbers(refusal)
        yield Statement("placement", f"node {refusal.node}", refusal.code, text, refusal.node)
    if not decision.refused:
        yield Statement("placement", "the controller", "no_capacity", problem.detail)


def _numbers(refusal: NodeRefusal) -> str:
    if refusal.wanted is None:
        return ""
    return f" [wanted {refusal.wanted}, free {refusal.free} {refusal.unit}]"


def _operation(evidence: Evidence) -> Iterator[Statement]:
    """The last operation, if it failed: later ones make good what earlier ones did not."""
    if evidence.timeline is None or not evidence.timeline.operations:
        return
    last = evidence.timeline.operations[-1]
    if last.outcome not in ("failed", "cut_short"):
        return
    step = f" at {last.steps[-1].name}" if last.steps else ""
    who = f"{last.operation}{step} on {evidence.node_name or 'its node'}"
    yield Statement("operation", who, last.code, last.message, evidence.node_name)


def _alerts(evidence: Evidence) -> Iterator[Statement]:
    node = evidence.node_name
    found: dict[tuple[str, str], Statement] = {}
    own = evidence.report.node.alerts if evidence.report is not None else ()
    seen = evidence.node.alerts if evidence.node is not None else ()
    for alert in (*own, *seen, *evidence.alerts):
        about = alert.subject in (evidence.subject, node) or alert.code in NODE_ALERTS
        if about or not evidence.vm:
            found[alert.code, alert.subject] = Statement(
                "alert", f"alert of {alert.subject}", alert.code, alert.message, node, alert.hint
            )
    yield from found.values()


def _qemu(evidence: Evidence) -> Iterator[Statement]:
    """What the last QEMU said, if it does not run: of one that runs it is old."""
    inspection = evidence.inspection
    if inspection is None or inspection.pid is not None:
        return
    lines = list(inspection.qemu_log)
    begins = [number for number, line in enumerate(lines) if NEW_RUN in line]
    for line in lines[begins[-1] + 1 if begins else 0 :]:
        yield Statement("qemu", "QEMU's log", "", line.strip(), evidence.node_name)
