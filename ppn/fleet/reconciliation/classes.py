"""The classes of discrepancy that only a comparison of the pool's parts can find."""

from __future__ import annotations

from dataclasses import dataclass

from ppn.fleet.reconciliation.model import Finding


@dataclass(frozen=True)
class Class:
    """A class of discrepancy: its stable code, what it means, and what to do about it."""

    code: str
    meaning: str
    hint: str

    def of(self, subject: str, node: str, message: str) -> Finding:
        """A finding of this class.

        Args:
            subject: what it is about.
            node: where; empty for what is on no node.
            message: what is wrong, with the names and figures.
        """
        return Finding(self.code, subject, node, message, self.hint)


GHOST_RECORD = Class(
    "ghost_record",
    "the tenant store has a VM that no node has",
    "find out in the audit log where it went, then have the tenant or the operator destroy it:"
    " that frees what it takes of the quota",
)
VM_UNRECORDED = Class(
    "vm_unrecorded",
    "a tenant's VM is on a node and in no tenant store, so that no quota counts it",
    "find out in the audit log who made it: a tenant store put back from an older copy lacks what"
    " was made since; destroy it only if nobody's it is",
)
OWNER_WRONG = Class(
    "owner_wrong",
    "the node says that a VM is another tenant's than the tenant store does",
    "look the VM up in the audit log; until then let neither tenant touch it",
)
SIZE_WRONG = Class(
    "size_wrong",
    "a VM has other memory, vCPUs or disk than its tenant's quota counts",
    "resize it through the tenant proxy to what it shall be",
)
RESERVATION_LEAKED = Class(
    "reservation_leaked",
    "what is reserved for a new or a changed VM is neither settled nor released after an hour",
    "see why the tenant proxy's sweeper cannot decide it: journalctl -u ppn-tenant",
)
REMOVAL_STUCK = Class(
    "removal_stuck",
    "a VM has been on its way out of the tenant store for over an hour",
    "see why the tenant proxy's sweeper cannot decide it: journalctl -u ppn-tenant",
)
RECORDS_DIFFER = Class(
    "records_differ",
    "two tenant proxies have different records of one VM",
    "give all tenant proxies one PostgreSQL, or each tenant one proxy",
)
VM_DOUBLED = Class(
    "vm_doubled",
    "one VM is on several nodes",
    "decide which one to keep and destroy the other on its node",
)
REGISTRY_DIFFERS = Class(
    "registry_differs",
    "a controller believes something else of a node's VMs than the node itself says",
    "see whether the node's heartbeats reach that controller; restarted, it hears everything anew",
)
NODE_UNHEARD = Class(
    "node_unheard",
    "some controllers hear a node and others do not",
    "look at the mesh path from the node to those controllers",
)
NODE_STALE = Class(
    "node_stale",
    "no controller hears a node",
    "see whether it is up and whether its agent reaches the controllers",
)
INVENTORY_DIFFERS = Class(
    "inventory_differs",
    "a controller knows a node that reconciliation was not told of",
    "run the pool's deploy for every controller",
)
INTENT_STUCK = Class(
    "intent_stuck",
    "a controller has an open intent for a VM that its node is not at",
    "see what the controller says of it: journalctl -u ppn-fleet",
)
SOURCE_UNREADABLE = Class(
    "source_unreadable",
    "a source did not answer, so that what it alone can tell was not judged",
    "see whether it runs and whether this machine may ask it, then run again",
)
CONTROLLER_SILENT = Class(
    "controller_silent",
    "a controller does not answer",
    "systemctl status ppn-fleet on it, and its mesh path",
)
ALERTS_UNTOLD = Class(
    "alerts_untold",
    "more is wrong than alerts are remembered, and what is beyond is told to nobody",
    "see all of it in ppn reconcile show and ppn fleet alerts; once some is over the rest is told",
)

CLASSES = (
    GHOST_RECORD,
    VM_UNRECORDED,
    OWNER_WRONG,
    SIZE_WRONG,
    RESERVATION_LEAKED,
    REMOVAL_STUCK,
    RECORDS_DIFFER,
    VM_DOUBLED,
    REGISTRY_DIFFERS,
    NODE_UNHEARD,
    NODE_STALE,
    INVENTORY_DIFFERS,
    INTENT_STUCK,
    SOURCE_UNREADABLE,
    CONTROLLER_SILENT,
    ALERTS_UNTOLD,
)
