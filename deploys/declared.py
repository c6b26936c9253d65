"""What the inventory declares for one hypervisor, checked before anything is changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ppn.errors import Refusal
from ppn.host.forecast import after
from ppn.host.model import Image, LedgerGrant, LedgerStatus, LibvirtStatus, NodeState, Settings
from ppn.host.network import node_network
from ppn.host.policy import refusals
from ppn.host.spec import VmSpec, spec_from_data
from ppn.pool.ledger import DEFAULT_WEIGHT, Change, Grant, Withdrawal

GRANT_KEYS = ("weight", "minimum_mib")
SETTING_KEYS = (
    "reserved",
    "allow_odd_vcpus",
    "vcpu_buffer",
    "memory_buffer_mib",
    "mesh_address",
    "mesh_interface",
    "vm_range",
    "vm_internet",
    "port_first",
    "port_last",
)


@dataclass(frozen=True)
class Declaration:
    """A hypervisor as declared; `problems` says what is wrong with it, each with a next step."""

    settings: Settings
    specs: tuple[VmSpec, ...] = ()
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()


def declare(name: str, data: Mapping[str, Any]) -> Declaration:
    """Read a host's inventory data.

    Args:
        name: the node's name.
        data: its host data; `vms` holds a spec for each VM, with `weight` and `minimum_mib`.
    """
    problems: list[str] = []
    specs: list[VmSpec] = []
    changes: list[Change] = []
    for vm in data.get("vms", []):
        try:
            spec = spec_from_data({k: v for k, v in vm.items() if k not in GRANT_KEYS})
            changes.append(change_for(spec, vm))
            specs.append(spec)
        except Refusal as refusal:
            problems.append(str(refusal))
    counts = Counter(spec.name for spec in specs)
    problems += [
        f"vm {vm} is declared {count} times on {name}: keep one of them (vm_declared_twice)"
        for vm, count in counts.items()
        if count > 1
    ]
    return Declaration(
        settings_of(name, data, problems), tuple(specs), tuple(changes), tuple(problems)
    )


def settings_of(name: str, data: Mapping[str, Any], problems: list[str]) -> Settings:
    """The node's own settings; what is wrong with them is added to `problems`."""
    try:
        return Settings(name=name, **{key: data[key] for key in SETTING_KEYS if key in data})
    except ValidationError as error:
        problems += [
            f"node {name}: {'.'.join(map(str, item['loc']))}: {item['msg']}, not {item['input']!r}:"
            " correct it in the inventory (settings_invalid)"
            for item in error.errors()
        ]
        return Settings(name=name)


def change_for(spec: VmSpec, data: Mapping[str, Any]) -> Change:
    """What the ledger must say of a VM: its grant, or nothing once it is absent."""
    if spec.state == "absent":
        return Withdrawal(spec.name)
    return Grant(
        spec.name,
        data.get("weight", DEFAULT_WEIGHT),
        data.get("minimum_mib", spec.memory_mib),
    )


def wanted_ledger(declarations: Iterable[Declaration]) -> dict[str, Change]:
    """What the pool's ledger must say of every declared VM; a VM that lives wins over one gone."""
    wanted: dict[str, Change] = {}
    for change in (change for one in declarations for change in one.changes):
        if change.vm not in wanted or isinstance(change, Grant):
            wanted[change.vm] = change
    return wanted


def declared_twice(declarations: Mapping[str, Declaration]) -> dict[str, list[str]]:
    """Per node, the VMs another node declares too: names are unique in a pool (ledger, moves)."""
    homes: dict[str, list[str]] = {}
    for node, declaration in declarations.items():
        for name in {spec.name for spec in declaration.specs if spec.state != "absent"}:
            homes.setdefault(name, []).append(node)
    problems: dict[str, list[str]] = {}
    for vm, nodes in homes.items():
        text = f"vm {vm} is declared on {' and '.join(nodes)}: keep one (vm_declared_twice)"
        for node in nodes if len(nodes) > 1 else ():
            problems.setdefault(node, []).append(text)
    return problems


def admission_problems(declaration: Declaration, node: NodeState) -> list[str]:
    """Why the node could not become what is declared; empty when it can.

    Args:
        declaration: the node as declared.
        node: the node as it is; its ledger, settings and libvirt are taken as this run will
            leave them.
    """
    problems = list(range_problems(declaration, node))
    node = as_this_run_leaves(node, declaration)
    # What goes first makes room: removals and stops, then the rest in the order declared.
    for spec in sorted(declaration.specs, key=lambda spec: spec.state == "running"):
        found = list(refusals(spec, node))
        problems += [str(refusal) for refusal in found]
        if not found:
            node = after(node, spec)
    return problems


def range_problems(declaration: Declaration, node: NodeState) -> Iterator[str]:
    """VMs that the declared network would cut off: their address or their gateway goes.

    Args:
        declaration: the node as declared.
        node: the node as it is.
    """
    wanted = node_network(declaration.settings)
    gone = {spec.name for spec in declaration.specs if spec.state == "absent"}
    for vm in node.vms:
        if vm.lease is None or vm.name in gone:
            continue
        stays = wanted is not None and IPv4Address(vm.lease.address) in IPv4Network(wanted.range)
        if not stays or (node.network and wanted and node.network.gateway != wanted.gateway):
            yield (
                f"node {declaration.settings.name}: vm_range {declaration.settings.vm_range} would"
                f" cut off vm {vm.name} at {vm.lease.address}: keep the range and its first"
                " address, or remove that VM first (vm_range_in_use)"
            )


def as_this_run_leaves(node: NodeState, declaration: Declaration) -> NodeState:
    """The node with the settings and the ledger that are about to be installed."""
    granted = tuple(
        LedgerGrant(vm=change.vm, weight=change.weight, minimum_mib=change.minimum_mib)
        for change in declaration.changes
        if isinstance(change, Grant)
    )
    named = {change.vm for change in declaration.changes}
    others = tuple(grant for grant in node.ledger.grants if grant.vm not in named)
    settings = declaration.settings
    pool = node.pool.model_copy(
        update={
            "reserved_mib": settings.memory_buffer_mib,
            "vcpu_buffer": settings.vcpu_buffer,
        }
    )
    return node.model_copy(
        update={
            "settings": settings,
            "network": node_network(settings, node.network.busy if node.network else ()),
            "pool": pool,
            "libvirt": LibvirtStatus(ok=True),
            "ledger": LedgerStatus(ok=True, grants=(*others, *granted)),
        }
    )


def local_image(name: str, folder: Path) -> Image:
    """An image folder on this machine, as the node will see it."""
    content = (folder / "manifest.json").read_bytes()
    kernel = json.loads(content).get("kernel")
    return Image(name=name, digest=sha256(content).hexdigest(), direct_boot=kernel is not None)
