"""Where a VM goes: pure, and the same in service, simulation and benchmark.

Nodes are tried in this order; the first line in which a node fits decides, whatever the lines
below would offer (FLEET-03, FLEET-09):

    VM prefers KVM, or policy kvm-first     VM does not care
    1. non-reserved, KVM                    1. non-reserved
    2. non-reserved, no KVM                 2. reserved
    3. reserved, KVM
    4. reserved, no KVM

So an unreserved node without KVM goes before a reserved one with it. Among the nodes of one line
that fit, the policy chooses:

    spread      the one whose fullest resource (CPU, memory, disk) is least full
    pack        the one whose fullest resource is fullest
    kvm-first   as spread, and prefers KVM also for a VM that does not

Equal ones go by name. A node fits when `refusals` finds nothing: the rules of the node's own
`ppn.host.policy`, as far as a heartbeat lets them be judged, and the margin. The node has the final
word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ppn.fleet.index import Index
from ppn.fleet.model import Demand, NodeView
from ppn.host.plan import MIB_PER_GIB
from ppn.wire.problems import NoCapacity, NodeRefusal

Passed = Literal["non-reserved", "reserved"]
# Up to so many nodes with a wanted label are looked at one by one.
FEW = 64


@dataclass(frozen=True, slots=True)
class Choice:
    """The node a VM goes to, and the pass that found it."""

    node: NodeView
    passed: Passed


def place(
    demand: Demand, index: Index, excluded: Mapping[str, NodeRefusal] | None = None
) -> Choice | None:
    """Choose a node; None when none fits.

    Args:
        demand: what is wanted.
        index: every node that may be chosen.
        excluded: nodes that have refused this very VM already, with their reasons.
    """
    refused = excluded or {}

    def fits(node: NodeView) -> bool:
        return node.name not in refused and next(refusals(demand, node), None) is None

    few = _few(demand, index, fits)
    need = index.need(demand)
    for reserved in (False, True):
        for tier in tiers(demand):
            groups = [(reserved, kvm) for kvm in tier]
            if few is None:
                searched = [index.search(need, group, fits) for group in groups] if need else []
                found = [node for node in searched if node is not None]
            else:
                found = [node for node in few if (node.reserved, node.kvm) in groups]
            if found:
                best = min(found, key=lambda node: rank(demand, node))
                return Choice(best, "reserved" if reserved else "non-reserved")
    return None


def _few(demand: Demand, index: Index, fits: Callable[[NodeView], bool]) -> list[NodeView] | None:
    """All that fit, when affinity leaves few nodes to look at; None when it does not."""
    if not demand.affinity:
        return None
    near = index.holders((demand.owner, demand.affinity))
    views = index.views()
    return [node for name in near if fits(node := views[name])] if len(near) <= FEW else None


def tiers(demand: Demand) -> tuple[tuple[bool, ...], ...]:
    """With KVM or without: what is tried together, in the order it is tried in."""
    if demand.kvm or demand.policy == "kvm-first":
        return ((True,), (False,))
    return ((True, False),)


def rank(demand: Demand, node: NodeView) -> tuple[int, str]:
    """Where a node stands among those that fit; the least is chosen."""
    return (-node.share if demand.policy == "pack" else node.share, node.name)


def refusals(demand: Demand, node: NodeView) -> Iterator[NodeRefusal]:
    """Every constraint that keeps a VM from a node, the most basic first."""
    if demand.image not in node.images:
        yield _refusal(node, "image_unknown", f"has no image {demand.image}", "guest images")
    elif demand.root_gib * MIB_PER_GIB < node.images[demand.image]:
        least = -(-node.images[demand.image] // MIB_PER_GIB)
        yield _short(node, "disk_below_image", "root disk", demand.root_gib, least, "GiB")
    if demand.vcpus > node.largest_socket:
        wanted, free = demand.vcpus, node.largest_socket
        yield _short(
            node, "vcpus_exceed_socket", "cores of the largest socket", wanted, free, "vCPU"
        )
    if demand.vcpus % 2 and not node.allow_odd:
        wanted = demand.vcpus
        yield _short(node, "vcpus_odd", "even vCPU count", wanted, wanted + 1, "vCPU")
    if demand.vcpus > node.free_vcpus:
        wanted, free = demand.vcpus, node.free_vcpus
        yield _short(node, "vcpus_exhausted", "CPUs less buffer less all VMs", wanted, free, "vCPU")
    if demand.memory_mib > node.free_memory_mib:
        wanted, free = demand.memory_mib, node.free_memory_mib
        yield _short(node, "memory_exhausted", "free memory less margin", wanted, free, "MiB")
    if demand.disk_mib > node.free_disk_mib:
        wanted, free = demand.disk_mib, node.free_disk_mib
        yield _short(
            node, "disk_exhausted", "free disk less what disks may grow by", wanted, free, "MiB"
        )
    yield from _network_refusals(demand, node)
    yield from _label_refusals(demand, node)


def _network_refusals(demand: Demand, node: NodeView) -> Iterator[NodeRefusal]:
    if node.addresses is None:
        if demand.network:
            yield _refusal(node, "network_missing", "has no VM network for ports", "VM network")
    elif node.addresses < 1:
        constraint = "addresses of the VM network"
        yield _short(node, "addresses_exhausted", constraint, 1, node.addresses, "address")


def _label_refusals(demand: Demand, node: NodeView) -> Iterator[NodeRefusal]:
    if demand.affinity and (demand.owner, demand.affinity) not in node.labels:
        text = f"holds no VM of {demand.owner} with label {demand.affinity}"
        yield _refusal(node, "affinity_unmet", text, "affinity")
    if demand.anti_affinity and (demand.owner, demand.anti_affinity) in node.labels:
        text = f"holds a VM of {demand.owner} with label {demand.anti_affinity}"
        yield _refusal(node, "anti_affinity_unmet", text, "anti-affinity")


def _refusal(node: NodeView, code: str, text: str, constraint: str) -> NodeRefusal:
    return NodeRefusal(node=node.name, code=code, message=text, constraint=constraint)


def _short(
    node: NodeView, code: str, constraint: str, wanted: int, free: int, unit: str
) -> NodeRefusal:
    free = max(free, 0)
    return NodeRefusal(
        node=node.name,
        code=code,
        message=f"not enough left of: {constraint}",
        constraint=constraint,
        wanted=wanted,
        free=free,
        unit=unit,
    )


def no_capacity(
    vm: str,
    demand: Demand,
    nodes: Iterable[NodeView],
    others: Mapping[str, NodeRefusal] | None = None,
) -> NoCapacity:
    """Why no node could take a VM, node by node in the order of their names.

    Args:
        vm: the id the VM would have had.
        demand: what was wanted.
        nodes: the nodes that were candidates.
        others: nodes that were none, or refused by themselves, with the reasons.
    """
    why = dict(others or {})
    for node in nodes:
        if node.name not in why and (first := next(refusals(demand, node), None)) is not None:
            why[node.name] = first
    counts = Counter(refusal.code for refusal in why.values())
    reasons = ", ".join(f"{code} on {count}" for code, count in counts.most_common()) or "no nodes"
    return NoCapacity(
        f"vm {vm}: no node can take it: {reasons}", [why[name] for name in sorted(why)]
    )
