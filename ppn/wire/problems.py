"""Errors on the wire: problem+json (RFC 9457) with the stable codes of `ppn.errors`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from ppn.errors import PpnError, Refusal

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:ppn:problem:"

# Any code not named here: a refusal is a conflict with the present state, the rest are failures.
STATUS_OF_CODE = {
    "address_taken": 409,
    "agent_busy": 503,
    "agent_failed": 502,
    "agent_timeout": 504,
    "agent_unavailable": 503,
    "amount_invalid": 400,
    "audit_checkpoint_malformed": 400,
    "audit_damaged": 503,
    "audit_inconsistent": 422,
    "audit_key_malformed": 403,
    "audit_key_wrong": 403,
    "audit_note_malformed": 400,
    "audit_origin_unknown": 404,
    "audit_signature_wrong": 403,
    "audit_submission_malformed": 400,
    "audit_unavailable": 503,
    "body_late": 408,
    "body_too_long": 413,
    "certificate_ended": 403,
    "decision_unknown": 404,
    "fleet_unreachable": 503,
    "forbidden": 403,
    "frame_invalid": 400,
    "frame_too_long": 413,
    "http_invalid": 400,
    "libvirt_timeout": 503,
    "libvirt_unavailable": 503,
    "media_type_unknown": 415,
    "method_unknown": 405,
    "move_unknown": 404,
    "no_capacity": 409,
    "node_busy": 503,
    "node_unknown": 404,
    "node_unreachable": 503,
    "nodes_silent": 503,
    "operation_unknown": 404,
    "outcome_unknown": 504,
    "quota_exceeded": 403,
    "rate_limited": 429,
    "request_invalid": 400,
    "route_unknown": 404,
    "scope_refused": 403,
    "source_wrong": 403,
    "spec_invalid": 400,
    "store_unavailable": 503,
    "tenant_unknown": 404,
    "ticket_refused": 403,
    "token_refused": 401,
    "token_unknown": 404,
    "too_many_at_once": 429,
    "version_unknown": 400,
    "vm_id_invalid": 400,
    "vm_undecided": 503,
    "vm_replaced": 412,
    "vm_unknown": 404,
    "warming_up": 503,
}


class NodeRefusal(BaseModel):
    """Why one node could not take a VM: the constraint that binds, with its numbers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    node: str
    code: str
    message: str
    constraint: str = ""
    wanted: int | None = None
    free: int | None = None
    unit: str = ""


class NoCapacity(Refusal):
    """No node can take a VM; says of each node why.

    Args:
        message: what was refused.
        nodes: the constraint that binds on each node.
    """

    def __init__(self, message: str, nodes: Iterable[NodeRefusal]) -> None:
        super().__init__(
            message,
            code="no_capacity",
            constraint="capacity of every node",
            hint="ask for less, destroy VMs, or add a node",
        )
        self.nodes = tuple(nodes)

    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {
            "nodes": [node.model_dump(exclude_defaults=True) for node in self.nodes]
        }

    def __str__(self) -> str:
        return "\n".join((super().__str__(), *(f"  {_reason(node)}" for node in self.nodes)))


def _reason(refused: NodeRefusal) -> str:
    """Why one node cannot, on one line."""
    numbers = ""
    if refused.wanted is not None:
        numbers = f" [wanted {refused.wanted}, free {refused.free} {refused.unit}]"
    return f"{refused.node}: {refused.message}{numbers} ({refused.code})"


class ProblemBody(BaseModel):
    """An error as a body.

    Args:
        type: a URN that ends with the code.
        title: the constraint that binds, or the code in words.
        status: the HTTP status.
        detail: what happened, naming the object and the value.
        code: the stable name of this kind of error.
        constraint: the rule or resource that binds; empty for what is no refusal.
        wanted: how much was asked for, in `unit`.
        free: how much could be had, in `unit`.
        hint: the next step a person can take.
        correlation_id: stands in the log lines of every service the request passed.
        nodes: for a placement, why each node could not.
    """

    # A newer service may say more; what is known here is still understood.
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str
    constraint: str = ""
    wanted: int | None = None
    free: int | None = None
    unit: str = ""
    hint: str = ""
    correlation_id: str = ""
    nodes: tuple[NodeRefusal, ...] = ()


def problem_of(error: PpnError, *, correlation_id: str = "") -> ProblemBody:
    """An error as a body.

    Args:
        error: what was raised.
        correlation_id: of the request that met it.
    """
    refusal = error if isinstance(error, Refusal) else None
    return ProblemBody(
        type=TYPE_PREFIX + error.code,
        title=(refusal.constraint if refusal else "") or error.code.replace("_", " "),
        status=status_of(error),
        detail=error.message,
        code=error.code,
        constraint=refusal.constraint if refusal else "",
        wanted=refusal.wanted if refusal else None,
        free=refusal.free if refusal else None,
        unit=refusal.unit if refusal else "",
        hint=error.hint,
        correlation_id=correlation_id,
        nodes=error.nodes if isinstance(error, NoCapacity) else (),
    )


def status_of(error: PpnError) -> int:
    """The HTTP status of an error."""
    return STATUS_OF_CODE.get(error.code, 409 if isinstance(error, Refusal) else 500)


def error_of(problem: ProblemBody) -> PpnError:
    """The error a body tells of, as it was raised on the other side."""
    if problem.code == "no_capacity":
        return NoCapacity(problem.detail, problem.nodes)
    if not problem.constraint:
        return PpnError(problem.detail, code=problem.code, hint=problem.hint)
    return Refusal(
        problem.detail,
        code=problem.code,
        constraint=problem.constraint,
        wanted=problem.wanted,
        free=problem.free,
        unit=problem.unit,
        hint=problem.hint,
    )
