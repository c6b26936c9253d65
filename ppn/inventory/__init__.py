"""The pool as its inventory declares it: nodes, customers, sites, addresses, judged whole."""

from ppn.inventory.judge import pool_from_data
from ppn.inventory.pool import (
    DEFAULT_INTERFACE,
    DEFAULT_PORT,
    DEFAULT_RANGE,
    KEEPER_PORT,
    KNOWN_ROLES,
    PROBE_RANGE,
    SERVICE_PORTS,
    SMALLEST_VM_RANGE,
    TENANT_PROXY,
    TENANT_PROXY_PORT,
    VM_BRIDGE,
    Node,
    NodeUnknown,
    Pool,
    TenantPeer,
)

__all__ = [
    "DEFAULT_INTERFACE",
    "DEFAULT_PORT",
    "DEFAULT_RANGE",
    "KEEPER_PORT",
    "KNOWN_ROLES",
    "PROBE_RANGE",
    "SERVICE_PORTS",
    "SMALLEST_VM_RANGE",
    "TENANT_PROXY",
    "TENANT_PROXY_PORT",
    "VM_BRIDGE",
    "Node",
    "NodeUnknown",
    "Pool",
    "TenantPeer",
    "pool_from_data",
]
