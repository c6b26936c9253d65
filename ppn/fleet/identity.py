"""Names that a repeated request finds again on any controller, without asking anyone."""

from __future__ import annotations

import base64
import hashlib
import json

from ppn.errors import Refusal
from ppn.wire.fleet import VmOrder
from ppn.wire.heartbeat import VmReport

ID_CHARACTERS = 16


def vm_id(owner: str, key: str, index: int = 0) -> str:
    """The id of a VM: the same for the same owner, idempotency key and place in a batch.

    Args:
        owner: whose VM.
        key: the caller's idempotency key.
        index: its place in a batch; 0 for a single VM.
    """
    return "vm-" + _word(f"{owner}\0{key}\0{index}")


def batch_id(owner: str, key: str) -> str:
    """The id of a batch: the same for the same owner and idempotency key."""
    return "batch-" + _word(f"{owner}\0{key}")


def order_digest(order: VmOrder) -> str:
    """SHA-256 of an order, to see whether a repeated request asks for the same."""
    text = json.dumps(order.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def agrees(report: VmReport, order: VmOrder) -> bool:
    """Whether a VM may be what an order asked for; vCPUs, memory and disks may change later."""
    there = (report.owner, report.image, report.label, report.disk_gib)
    return there == (order.owner, order.image, order.label, order.disk_gib)


def differs(vm: str) -> Refusal:
    """The refusal of an idempotency key that was used for another order."""
    return Refusal(
        f"vm {vm} was ordered otherwise under this idempotency key",
        code="order_differs",
        constraint="idempotency key",
        hint="use another key for another VM",
    )


def _word(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:ID_CHARACTERS]
