"""A run's report: one canonical encoding, signed with a key that was born on the node (REC-04)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.errors import PpnError
from ppn.fleet.reconciliation.model import Finding, Gap, Kind, Views

SIGNATURE_DOMAIN = b"ppn reconciliation report v1\n"
MAX_BYTES = 64 * 1024 * 1024
MANY = Field(strict=False)


class ReportDamaged(PpnError):
    """A report that cannot be trusted."""

    code = "report_damaged"


class Part(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Compared(Part):
    """What was compared: the sources that answered, and how much they told."""

    nodes: Annotated[tuple[str, ...], MANY]
    controllers: Annotated[tuple[str, ...], MANY]
    tenant_proxies: Annotated[tuple[str, ...], MANY]
    vms: int
    allocations: int


class NotJudged(Part):
    """A source that did not answer; what it alone can tell is left open."""

    kind: Kind
    name: str
    reason: str


class Discrepancy(Part):
    """A finding, with its class as `code`."""

    code: str
    subject: str
    node: str
    message: str
    hint: str


class Report(Part):
    """What a run compared and what it found.

    Args:
        by: the node it ran on.
        began, ended: RFC 3339 in UTC.
        previous: SHA-256 of the file of the report before it; empty for the first.
        compared: the sources that answered.
        not_judged: those that did not.
        findings: by class, subject and node.
    """

    version: Literal[1] = 1
    by: str
    began: str
    ended: str
    previous: str
    compared: Compared
    not_judged: Annotated[tuple[NotJudged, ...], MANY]
    findings: Annotated[tuple[Discrepancy, ...], MANY]

    @property
    def is_clean(self) -> bool:
        """Whether everything was judged and nothing found."""
        return not self.findings and not self.not_judged


def report_of(
    views: Views, found: tuple[Finding, ...], *, by: str, began: datetime, previous: str
) -> Report:
    """The report of a run.

    Args:
        views: what was compared last.
        found: what differs.
        by: the node it ran on.
        began: when.
        previous: SHA-256 of the file of the report before it.
    """
    return Report(
        by=by,
        began=began.isoformat(),
        ended=views.at.isoformat(),
        previous=previous,
        compared=Compared(
            nodes=tuple(node.name for node in views.nodes),
            controllers=tuple(one.name for one in views.controllers),
            tenant_proxies=tuple(store.name for store in views.stores),
            vms=sum(len(node.vms) for node in views.nodes),
            allocations=sum(len(store.allocations) for store in views.stores),
        ),
        not_judged=tuple(_gap(gap) for gap in sorted(views.gaps)),
        findings=tuple(_discrepancy(one) for one in found),
    )


def encode(report: Report, key: Ed25519PrivateKey) -> bytes:
    """The file of a report: one line of canonical JSON with its signature.

    Args:
        report: what it says.
        key: of the node it ran on.
    """
    fields = report.model_dump(mode="json")
    return _file(fields, key.sign(_signed(fields)))


def decode(content: bytes, key: Ed25519PublicKey, name: str) -> Report:
    """Verify the file of a report and return what it says.

    Args:
        content: the whole file.
        key: the public key of the node it ran on.
        name: of the file, for errors.

    Raises:
        ReportDamaged: `report_damaged` when it is none, `report_not_canonical` when another text
            says the same, `report_signature_wrong` when it is not this key's.
    """
    try:
        envelope = json.loads(content)
        fields, signature = envelope["report"], base64.b64decode(envelope["signature"])
        report = Report.model_validate(fields)
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise ReportDamaged(
            f"{name} is no report of reconciliation", hint="compare it with another copy"
        ) from error
    # The signature is encoded anew: two texts of base64 can mean the same bytes.
    if _file(fields, signature) != content:
        raise ReportDamaged(
            f"{name} is not in the canonical encoding",
            code="report_not_canonical",
            hint="it was changed after it was written: compare it with another copy",
        )
    try:
        key.verify(signature, _signed(fields))
    except InvalidSignature as error:
        raise ReportDamaged(
            f"the signature of {name} is not this key's",
            code="report_signature_wrong",
            hint="it was changed, or another node's key signed it: give that key with --key",
        ) from error
    return report


def previous_of(content: bytes) -> str:
    """What a report's file names as the one before it, unverified; empty where it names none."""
    try:
        return str(json.loads(content)["report"]["previous"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def digest(content: bytes) -> str:
    """Hex SHA-256 of a report's file, as the next report names it."""
    return hashlib.sha256(content).hexdigest()


def canonical(fields: Mapping[str, Any]) -> bytes:
    """The one encoding of an object: sorted keys, no spaces, ASCII."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _file(fields: Mapping[str, Any], signature: bytes) -> bytes:
    text = base64.b64encode(signature).decode()
    return canonical({"report": fields, "signature": text}) + b"\n"


def _signed(fields: Mapping[str, Any]) -> bytes:
    return SIGNATURE_DOMAIN + canonical(fields)


def _gap(gap: Gap) -> NotJudged:
    return NotJudged(kind=gap.kind, name=gap.name, reason=gap.reason)


def _discrepancy(one: Finding) -> Discrepancy:
    return Discrepancy(
        code=one.code, subject=one.subject, node=one.node, message=one.message, hint=one.hint
    )
