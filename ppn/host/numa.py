"""Which CPUs a VM holds: a greedy plan that keeps its vCPUs and its memory close together.

The rule (NUMA-04, NUMA-08), for one VM after the other, the one with most vCPUs first and by name
among equals:

1. It goes where all its vCPUs have room: into one NUMA node of one socket; if none has room, into
   one socket; if none has room either, over several sockets, as few as can be.
2. Among places of the same kind, one whose memory has room too is taken first, then the one with
   most free CPUs, then the one with the lowest number.
3. Every vCPU gets a CPU of its own. Whole cores come first, so that VMs with even vCPU counts
   never share a core.

The CPUs of the node's buffer, the lowest-numbered ones, are given to no VM. VMs that hold CPUs
already keep them: nothing that runs is moved, and a stopped VM finds its CPUs again. As no more
vCPUs than CPUs less buffer are ever promised (NUMA-07), there is always a free CPU for each; a VM
that is spread over sockets, because others left holes, runs all the same, and its state says so.

A guest whose CPUs are in several NUMA nodes is shown as many, each with its share of the memory, so
that the guest itself keeps memory close to the vCPU that uses it.

With V VMs and P CPUs the plan takes O(V log V + V * P log P) steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ppn.host.model import Enforcement, NodeState, Pins, Topology
from ppn.host.spec import VmSpec


@dataclass(frozen=True)
class Demand:
    """What a VM asks of the plan: vCPUs, and memory in MiB."""

    name: str
    vcpus: int
    memory_mib: int = 0


@dataclass(frozen=True)
class Holding:
    """What a VM has been given already, with its memory in MiB."""

    pins: Pins
    memory_mib: int = 0


@dataclass(frozen=True)
class GuestCell:
    """A NUMA node as a guest sees it.

    Args:
        vcpus: the guest's vCPUs in it.
        memory_mib: its memory in MiB.
        node: the NUMA node of the machine it stands for.
    """

    vcpus: tuple[int, ...]
    memory_mib: int
    node: int


@dataclass(frozen=True)
class Cell:
    """The CPUs of one NUMA node that are in one socket, core by core."""

    socket: int
    node: int
    cores: tuple[tuple[int, ...], ...]


def cells(topology: Topology) -> tuple[Cell, ...]:
    """The smallest places of a node, by socket and NUMA node."""
    node_of = {cpu: node.id for node in topology.numa_nodes for cpu in node.cpus}
    members: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for socket in topology.sockets:
        for core in socket.threads or tuple((cpu,) for cpu in socket.cpus):
            members.setdefault((socket.id, node_of.get(core[0], 0)), []).append(core)
    return tuple(Cell(*place, tuple(sorted(members[place]))) for place in sorted(members))


def plan_pins(
    topology: Topology,
    demands: Iterable[Demand],
    held: Mapping[str, Holding] | None = None,
    *,
    buffer: int = 0,
) -> dict[str, Pins | None]:
    """The CPUs of every VM that has none yet; the rule stands at the head of this file.

    Args:
        topology: the node's sockets, cores and NUMA nodes.
        demands: the VMs to place.
        held: what other VMs have been given; none of it is given twice, none of it is moved.
        buffer: CPUs no VM is given.

    Returns:
        For each VM its pins; None when fewer CPUs are free than it has vCPUs.
    """
    places = cells(topology)
    held = held or {}
    kept_back = sorted(cpu for cell in places for core in cell.cores for cpu in core)[:buffer]
    taken = {*kept_back, *(cpu for holding in held.values() for cpu in holding.pins.cpus)}
    memory = _free_memory(topology, held.values())
    plan: dict[str, Pins | None] = {}
    for demand in sorted(demands, key=lambda demand: (-demand.vcpus, demand.name)):
        pins = plan[demand.name] = _place(places, taken, memory, demand)
        if pins is not None:
            taken.update(pins.cpus)
            _take_memory(memory, Holding(pins, demand.memory_mib))
    if len(topology.numa_nodes) <= 1:
        # There is nothing to choose for the memory.
        return {name: pins and Pins(cpus=pins.cpus) for name, pins in plan.items()}
    return plan


def choose_pins(spec: VmSpec, node: NodeState) -> Pins | None:
    """The CPUs a VM shall hold from its next start on.

    It keeps those it holds as long as it runs; a stopped VM keeps them if they are as many as its
    vCPUs, still there, nobody else's, and on one socket.

    Args:
        spec: the VM as it shall be.
        node: the node as it is, with what other VMs hold.

    Returns:
        None where pinning takes no effect, or too few CPUs are free.
    """
    if not node.pinning.enforced:
        return None
    held = {
        vm.name: Holding(vm.pinning.wanted, vm.memory.maximum_mib)
        for vm in node.vms
        if vm.name != spec.name and vm.pinning.wanted is not None
    }
    view = node.vm(spec.name)
    own = view.pinning.wanted if view is not None else None
    if own is not None and _is_sound(own, spec.vcpus, node.topology, held):
        running = view is not None and view.state == "running"
        if running or len(sockets_of(own, node.topology)) == 1:
            return own
    demand = Demand(spec.name, spec.vcpus, spec.memory_mib)
    return plan_pins(node.topology, [demand], held, buffer=node.settings.vcpu_buffer)[spec.name]


def guest_cells(pins: Pins | None, memory_mib: int, topology: Topology) -> tuple[GuestCell, ...]:
    """The NUMA nodes a guest is shown: none, unless its CPUs are in several (NUMA-01).

    Its memory is shared evenly, as the plan counts it.

    Args:
        pins: the CPUs it holds; None for none.
        memory_mib: its memory in MiB.
        topology: the node's NUMA nodes.
    """
    if pins is None or len(pins.nodes) < 2:
        return ()
    node_of = {cpu: node.id for node in topology.numa_nodes for cpu in node.cpus}
    share, rest = divmod(memory_mib, len(pins.nodes))
    members = {
        node: tuple(vcpu for vcpu, cpu in enumerate(pins.cpus) if node_of.get(cpu) == node)
        for node in pins.nodes
    }
    if sum(map(len, members.values())) < len(pins.cpus) or not all(members.values()):
        # The machine's NUMA nodes are not those of the plan any more.
        return ()
    return tuple(
        GuestCell(vcpus, share + (rest if at == 0 else 0), node)
        for at, (node, vcpus) in enumerate(members.items())
    )


def sockets_of(pins: Pins, topology: Topology) -> tuple[int, ...]:
    """The sockets a VM's CPUs are on."""
    wanted = set(pins.cpus)
    return tuple(socket.id for socket in topology.sockets if wanted & set(socket.cpus))


def pinning_support(topology: Topology, usable: Iterable[int]) -> Enforcement:
    """Whether VMs can be pinned on this node, with the reason when they cannot.

    Args:
        topology: the CPUs the node shows, which its sums count.
        usable: the CPUs the kernel lets its processes run on.
    """
    shown = {cpu for socket in topology.sockets for cpu in socket.cpus}
    if missing := sorted(shown - set(usable)):
        few = ", ".join(map(str, missing[:4])) + (", ..." if len(missing) > 4 else "")
        return Enforcement(
            enforced=False, reason=f"processes of this node may not run on its CPUs {few}"
        )
    return Enforcement(enforced=True)


def _is_sound(pins: Pins, vcpus: int, topology: Topology, held: Mapping[str, Holding]) -> bool:
    there = {cpu for socket in topology.sockets for cpu in socket.cpus}
    others = {cpu for holding in held.values() for cpu in holding.pins.cpus}
    own = set(pins.cpus)
    return len(pins.cpus) == len(own) == vcpus and own <= there and not own & others


def _place(
    places: tuple[Cell, ...], taken: set[int], memory: Mapping[int, float], demand: Demand
) -> Pins | None:
    for groups in _levels(places):
        fitting = [group for group in groups if _free(group, taken) >= demand.vcpus]
        if fitting:
            best = max(fitting, key=lambda group: _score(group, taken, memory, demand))
            return _take(best, taken, demand.vcpus)
    return None


def _levels(places: tuple[Cell, ...]) -> Iterator[list[tuple[Cell, ...]]]:
    """Kinds of place, the closest first: one cell, one socket, the whole node."""
    yield [(cell,) for cell in places]
    sockets = sorted({cell.socket for cell in places})
    yield [tuple(cell for cell in places if cell.socket == socket) for socket in sockets]
    yield [places]


def _free(group: tuple[Cell, ...], taken: set[int]) -> int:
    return sum(cpu not in taken for cell in group for core in cell.cores for cpu in core)


def _score(
    group: tuple[Cell, ...], taken: set[int], memory: Mapping[int, float], demand: Demand
) -> tuple[bool, int, int, int]:
    room = sum(memory.get(node, 0) for node in {cell.node for cell in group})
    first = group[0]
    return (room >= demand.memory_mib, _free(group, taken), -first.socket, -first.node)


def _take(group: tuple[Cell, ...], taken: set[int], vcpus: int) -> Pins:
    """The emptiest sockets and cells first, so that as few as can be are touched."""
    chosen: list[int] = []
    nodes: set[int] = set()
    for cell in sorted(group, key=lambda cell: _emptiest_first(cell, group, taken)):
        if given := _cpus(cell, taken)[: vcpus - len(chosen)]:
            chosen += given
            nodes.add(cell.node)
    return Pins(cpus=tuple(chosen), nodes=tuple(sorted(nodes)))


def _emptiest_first(
    cell: Cell, group: tuple[Cell, ...], taken: set[int]
) -> tuple[int, int, int, int]:
    siblings = tuple(other for other in group if other.socket == cell.socket)
    return (-_free(siblings, taken), cell.socket, -_free((cell,), taken), cell.node)


def _cpus(cell: Cell, taken: set[int]) -> list[int]:
    """The free CPUs of a cell, those of wholly free cores first."""
    whole = [core for core in cell.cores if not taken & set(core)]
    partly = [core for core in cell.cores if taken & set(core)]
    return [cpu for core in (*whole, *partly) for cpu in core if cpu not in taken]


def _free_memory(topology: Topology, held: Iterable[Holding]) -> dict[int, float]:
    """What is not promised yet of each NUMA node's memory, in MiB."""
    memory: dict[int, float] = {node.id: node.memory_mib for node in topology.numa_nodes}
    for holding in held:
        _take_memory(memory, holding)
    return memory


def _take_memory(memory: dict[int, float], holding: Holding) -> None:
    for node in holding.pins.nodes:
        memory[node] = memory.get(node, 0) - holding.memory_mib / len(holding.pins.nodes)
