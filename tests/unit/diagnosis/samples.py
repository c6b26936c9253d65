"""Evidence of a VM and its node in good order, to be spoilt by tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ppn.diagnosis.evidence import Evidence, Trouble
from ppn.errors import PpnError
from ppn.wire.agent import AgentReport, Holds, OperationRecord, Step, Timeline
from ppn.wire.diagnosis import Examination, Inspection, MeshReport, PeerReport
from ppn.wire.fleet import Decision, PlacedVm
from ppn.wire.problems import NodeRefusal, ProblemBody
from tests.unit.fleet.builders import heartbeat, report

NOW = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
AT = "2026-01-02T00:00:00+00:00"
KVM = {"usable": True, "reason": "guest code ran", "probed": True}
PEER = PeerReport(
    name="relay", address="10.8.0.1", path="direct", tunnel=True, handshake_seconds=20.0
)
MESH = MeshReport(
    interface="ppn0", address="10.8.0.2", up=True, keeper_seconds=1.0, firewall=True, peers=(PEER,)
)
EXAMINATION = Examination(node="server", at=AT, versions={"ppn": "1"}, mesh=MESH)


def agent_report(**fields: Any) -> AgentReport:
    """A node as its agent sees it."""
    node = heartbeat("server", **({"kvm": KVM} | fields))
    return AgentReport(node=node, holds=Holds(count=0, mean_seconds=0, longest_seconds=0))


def record(**fields: Any) -> OperationRecord:
    """An operation that went well."""
    usual: dict[str, Any] = {
        "operation": "spawn",
        "correlation_id": "test-correlation",
        "began": AT,
        "outcome": "done",
        "steps": (Step(name="admit", at_seconds=0.0, seconds=0.1),),
    }
    return OperationRecord(**(usual | fields))


def decision(*refused: NodeRefusal, **fields: Any) -> Decision:
    """A decision for the server."""
    usual: dict[str, Any] = {
        "id": "web",
        "at": AT,
        "node": "server",
        "policy": "spread",
        "passed": "non-reserved",
        "candidates": 2,
        "tried": ("server",),
        "refused": refused,
    }
    return Decision(**(usual | fields))


def nowhere(*refused: NodeRefusal) -> Decision:
    """A decision that found no node."""
    problem = ProblemBody(type="t", title="t", status=409, detail="none", code="no_capacity")
    return decision(*refused, node=None, passed="none", tried=(), problem=problem)


def refusal(code: str, node: str = "server", message: str = "no") -> NodeRefusal:
    """Why a node could not."""
    return NodeRefusal(node=node, code=code, message=message)


WELL = Evidence(
    "web",
    True,
    NOW,
    "1",
    placed=PlacedVm(node="server", vm=report("web")),
    decision=decision(),
    timeline=Timeline(vm="web", operations=(record(),)),
    inspection=Inspection(vm="web", sidecar={"phase": "ready"}, seed="ok", pid=1),
    console="booting\nready\n",
    report=agent_report(),
    examination=EXAMINATION,
)


def spoilt(**fields: Any) -> Evidence:
    """The good evidence with some of it replaced."""
    return replace(WELL, **fields)


def asked(code: str, message: str = "no", node: str = "server") -> Evidence:
    """Evidence of a node that answers a question with an error."""
    trouble = Trouble(f"node {node}", PpnError(message, code=code), node)
    return spoilt(
        troubles=(trouble,), timeline=None, inspection=None, report=None, examination=None
    )
