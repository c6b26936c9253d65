"""What mesh nodes may reach on each other, for the firewall of every node."""

from __future__ import annotations

from deploys import fleet_controller, node_proxy, tenant_proxy, witness
from ppn.mesh.firewall import SSH

SERVICES = (
    SSH,
    *node_proxy.SERVICES,
    fleet_controller.SERVICE,
    tenant_proxy.SERVICE,
    witness.SERVICE,
)
