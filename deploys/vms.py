"""The VMs of a hypervisor, and what the capability ledger grants them."""

from __future__ import annotations

from collections.abc import Mapping

from pyinfra import host
from pyinfra.api import deploy

from deploys.declared import Declaration
from operations import ledger
from operations import vms as virtual_machines
from ppn.pool.ledger import Change


@deploy("VMs")
def vms(declaration: Declaration, wanted: Mapping[str, Change]) -> None:
    """Bring ledger and VMs of a hypervisor to what is declared.

    Args:
        declaration: this node's VMs.
        wanted: what the ledger must say of every VM of the pool.
    """
    ledger.operator_key(name="Key the ledger is trusted by", public=host.data.operator_public_key)
    ledger.declared(
        name="Capability ledger",
        changes=wanted,
        ledger=host.data.ledger,
        key=host.data.operator_key,
        public=host.data.operator_public_key,
    )
    virtual_machines.declared(name="VMs", vms=declaration.specs, changes=declaration.changes)
