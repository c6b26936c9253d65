"""What reconciliation compares, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ppn.wire.fleet import NodeReport, OpenIntent, PlacedVm
from ppn.wire.heartbeat import Alert, VmReport
from ppn.wire.tenant import AllocationReport

Kind = Literal["node", "controller", "tenant proxy"]


@dataclass(frozen=True, order=True)
class Key:
    """What makes two findings the same: the class, what it is about, and the node it is on."""

    code: str
    subject: str
    node: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Args:
        code: its class, stable.
        subject: the VM, domain, process, file or service it is about.
        node: where; empty for what is on no node.
        message: what is wrong.
        hint: what to do about it.
        told_by: `alert` when an agent or a controller raised it by itself, so that the watch over
            alerts sees it come and go; `comparison` when only reconciliation can see it.
    """

    code: str
    subject: str
    node: str
    message: str
    hint: str
    told_by: Literal["alert", "comparison"] = "comparison"

    @property
    def key(self) -> Key:
        """What makes it the same finding as another."""
        return Key(self.code, self.subject, self.node)


@dataclass(frozen=True)
class NodeLook:
    """A node as its agent saw it when it was asked.

    Args:
        name: in the inventory.
        vms: what it has.
        alerts: what its agent says is wrong.
        going: VMs that operations are changing there.
    """

    name: str
    vms: tuple[VmReport, ...] = ()
    alerts: tuple[Alert, ...] = ()
    going: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ControllerLook:
    """What one controller believes.

    Args:
        name: its address.
        placed: the VMs, each with its node.
        nodes: the nodes it has heard since it started.
        alerts: what it says is wrong with the pool as a whole.
        intents: VMs it is having made.
    """

    name: str
    placed: tuple[PlacedVm, ...] = ()
    nodes: tuple[NodeReport, ...] = ()
    alerts: tuple[Alert, ...] = ()
    intents: tuple[OpenIntent, ...] = ()


@dataclass(frozen=True)
class StoreLook:
    """What one tenant proxy has on record.

    Args:
        name: its address.
        allocations: of all tenants.
    """

    name: str
    allocations: tuple[AllocationReport, ...] = ()


@dataclass(frozen=True, order=True)
class Gap:
    """A source that could not be read: what it alone can tell is not judged, and never missing."""

    kind: Kind
    name: str
    reason: str


@dataclass(frozen=True)
class Views:
    """Everything that is compared, read within a few seconds.

    Args:
        at: when, in UTC.
        known: the hypervisors of the inventory.
        nodes: those that answered.
        controllers: those that answered.
        stores: of the tenant proxies that answered.
        gaps: what did not answer.
    """

    at: datetime
    known: tuple[str, ...]
    nodes: tuple[NodeLook, ...] = ()
    controllers: tuple[ControllerLook, ...] = ()
    stores: tuple[StoreLook, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def lacks(self, kind: Kind) -> bool:
        """Whether a source of that kind could not be read."""
        return any(gap.kind == kind for gap in self.gaps)
