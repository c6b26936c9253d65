"""The whole pool as the inventory declares it, the same for every host of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra import host, inventory

from deploys.declared import Declaration, declare, declared_twice, wanted_ledger
from deploys.reconciliation import reconciler, sink_problems
from deploys.tenant_proxy import tenant_proxy_problems
from ppn.inventory import Pool, pool_from_data
from ppn.pool.ledger import Change


@dataclass(frozen=True)
class DeclaredPool:
    """What the inventory declares.

    Args:
        pool: the mesh, of the nodes whose data are sound.
        problems: per node what is wrong with it, each with its next step.
        declarations: per hypervisor its settings and VMs.
        ledger: what the capability ledger must say of each declared VM.
        outside_mesh: nodes whose place in the mesh is not known. While there are any, the mesh of
            the others stays as it is: leaving them out would cut live tunnels.
    """

    pool: Pool
    problems: Mapping[str, list[str]]
    declarations: Mapping[str, Declaration]
    ledger: Mapping[str, Change]
    outside_mesh: frozenset[str]


# One inventory per process; reading it once for each host would be quadratic.
_declared: dict[int, DeclaredPool] = {}


def declared_pool() -> DeclaredPool:
    """The pool of the running inventory, read and judged once."""
    key = id(host.state.inventory)
    if key not in _declared:
        data = {name: node.data.dict() for name, node in inventory.hosts.items()}
        _declared[key] = read_pool(data)
    return _declared[key]


def read_pool(data: Mapping[str, Mapping[str, Any]]) -> DeclaredPool:
    """Judge the data of all hosts.

    Args:
        data: per host name its inventory data, group data included.
    """
    settings = next(iter(data.values()), {})
    pool, found = pool_from_data(settings, data)
    problems = {name: list(found.get(name, [])) for name in data}
    reconciling = reconciler(pool)
    if reconciling:
        problems[reconciling] += sink_problems(data[reconciling])
    declarations = {
        name: declare(name, node)
        for name, node in data.items()
        if node.get("vms") or "hypervisor" in node.get("roles", [])
    }
    for name, declaration in declarations.items():
        problems[name] += declaration.problems
        if "hypervisor" not in data[name].get("roles", []) and declaration.specs:
            problems[name].append(
                f"node {name} has VMs but not the role hypervisor: add the role or move the VMs"
                " (vms_without_hypervisor)"
            )
    for name, texts in declared_twice(declarations).items():
        problems[name] += texts
    for name, texts in tenant_proxy_problems(data).items():
        problems[name] += texts
    sound = [one for name, one in declarations.items() if not problems[name]]
    outside = frozenset(found)
    return DeclaredPool(pool, problems, declarations, wanted_ledger(sound), outside)
