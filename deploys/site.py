"""The whole pool: `pyinfra inventories/POOL/inventory.py deploys/site.py`.

A host whose declaration or state is wrong is refused here, alone, before anything is changed.
"""

from __future__ import annotations

from pyinfra import host

from deploys import fleet_controller, node_proxy, witness
from deploys.admission import admitted
from deploys.base import base
from deploys.certificates import certificates
from deploys.host_agent import host_agent
from deploys.hypervisor import hypervisor
from deploys.mesh import mesh
from deploys.pool import declared_pool
from deploys.reconciliation import reconciliation
from deploys.services import SERVICES
from deploys.tenant_proxy import tenant_proxy
from deploys.vms import vms
from operations.software import marker
from ppn.inventory import TENANT_PROXY

declared = declared_pool()
node = admitted(declared)
if node is not None:
    installed = marker(node.wheels.release.digest)
    base(wheels=node.wheels)
if node is not None and not declared.outside_mesh:
    mesh(pool=declared.pool, installed=installed, services=SERVICES)
    if {"controller", "hypervisor", TENANT_PROXY} & set(host.data.roles):
        certificates(pool=declared.pool)
    if "controller" in host.data.roles:
        fleet_controller.fleet_controller(pool=declared.pool, installed=installed)
        reconciliation(pool=declared.pool)
    if witness.ROLE in host.data.roles:
        witness.witness(pool=declared.pool, installed=installed)
    if TENANT_PROXY in host.data.roles:
        tenant_proxy(pool=declared.pool, installed=installed)
if node is not None and "hypervisor" in host.data.roles:
    hypervisor(
        declaration=node.declaration,
        hardware=node.hardware,
        folders=host.data.get("images", {}),
        installed=installed,
    )
    if not declared.outside_mesh:
        host_agent(pool=declared.pool, installed=installed)
        node_proxy.node_proxy(pool=declared.pool, installed=installed)
    vms(declaration=node.declaration, wanted=declared.ledger)
