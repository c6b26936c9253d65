"""Which CPUs VMs hold: worked examples, properties, and brute force for few VMs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.host.forecast import after
from ppn.host.model import (
    Enforcement,
    NodeState,
    NumaNode,
    Pins,
    Settings,
    Socket,
    Topology,
    VmPinning,
)
from ppn.host.numa import (
    Demand,
    Holding,
    choose_pins,
    guest_cells,
    pinning_support,
    plan_pins,
    sockets_of,
)
from ppn.host.policy import refusals
from ppn.host.spec import VmSpec
from ppn.host.topology import read_topology
from tests.host_root import write_hardware
from tests.unit.host.builders import make_node, make_spec, make_view

SETTINGS = Settings(memory_buffer_mib=512)
ENFORCED = Enforcement(enforced=True)


def machine(
    sockets: int, cores: int, *, threads: int = 1, nodes: int = 1, memory_mib: int = 65536
) -> Topology:
    """A machine whose cores' CPUs are numbered next to each other; `nodes` per socket."""
    per_socket = cores * threads
    cpus = sockets * per_socket
    share = per_socket // nodes
    return Topology(
        cpus=cpus,
        sockets=tuple(
            Socket(
                id=socket,
                cpus=tuple(range(socket * per_socket, (socket + 1) * per_socket)),
                cores=cores,
                threads=tuple(
                    tuple(range(first, first + threads))
                    for first in range(socket * per_socket, (socket + 1) * per_socket, threads)
                ),
            )
            for socket in range(sockets)
        ),
        numa_nodes=tuple(
            NumaNode(
                id=node,
                cpus=tuple(range(node * share, (node + 1) * share)),
                memory_mib=memory_mib // (sockets * nodes),
            )
            for node in range(sockets * nodes)
        ),
        memory_mib=memory_mib,
    )


def sizes(*vcpus: int) -> list[Demand]:
    return [Demand(f"vm{number}", count) for number, count in enumerate(vcpus)]


def planned(plan: dict[str, Pins | None]) -> dict[str, Pins]:
    """A plan in which every VM found its CPUs."""
    found = {name: pins for name, pins in plan.items() if pins is not None}
    assert found.keys() == plan.keys()
    return found


def test_two_sockets_of_eight(tmp_path: Path) -> None:
    """NUMA-01, NUMA-04, NUMA-08: largest first, then by name, each where most CPUs are free."""
    write_hardware(tmp_path, sockets=2, cores=8, memory_mib=32768)
    topology = read_topology(tmp_path / "sys", tmp_path / "proc")
    demands = [Demand("b", 4), Demand("d", 2), Demand("a", 4), Demand("c", 6)]
    plan = plan_pins(topology, demands)
    assert plan == {
        "c": Pins(cpus=(0, 1, 2, 3, 4, 5), nodes=(0,)),
        "a": Pins(cpus=(8, 9, 10, 11), nodes=(1,)),
        "b": Pins(cpus=(12, 13, 14, 15), nodes=(1,)),
        "d": Pins(cpus=(6, 7), nodes=(0,)),
    }
    assert list(plan) == ["c", "a", "b", "d"]


def test_four_sockets_of_four(tmp_path: Path) -> None:
    """NUMA-01, NUMA-08: four VMs of a socket's size take a socket each."""
    write_hardware(tmp_path, sockets=4, cores=4, memory_mib=32768)
    topology = read_topology(tmp_path / "sys", tmp_path / "proc")
    plan = planned(plan_pins(topology, sizes(4, 4, 4, 4)))
    assert [pins.nodes for pins in plan.values()] == [(0,), (1,), (2,), (3,)]


def test_running_vms_keep_their_cpus() -> None:
    """NUMA-04: what is held is given; a new VM takes its place around it."""
    held = {"old": Holding(Pins(cpus=(0, 1, 2, 3), nodes=(0,)))}
    plan = plan_pins(machine(2, 4), sizes(2), held)
    assert plan == {"vm0": Pins(cpus=(4, 5), nodes=(1,))}


def test_a_vm_too_large_for_a_node_stays_in_its_socket() -> None:
    """NUMA-08: two NUMA nodes per socket, none with room: both nodes of one socket."""
    topology = machine(2, 8, nodes=2)
    held = {"old": Holding(Pins(cpus=(0, 1), nodes=(0,)))}
    plan = planned(plan_pins(topology, sizes(6), held))
    assert plan["vm0"] == Pins(cpus=(8, 9, 10, 11, 12, 13), nodes=(2, 3))


def test_holes_are_filled_over_sockets_only_when_no_socket_has_room() -> None:
    """NUMA-07, NUMA-08: the sum fits, so the VM runs; fewest sockets, the emptiest first."""
    topology = machine(3, 6)
    held = {
        "a": Holding(Pins(cpus=(0, 1, 2), nodes=(0,))),
        "b": Holding(Pins(cpus=(6, 7, 8, 9), nodes=(1,))),
        "c": Holding(Pins(cpus=(12, 13, 14), nodes=(2,))),
    }
    plan = planned(plan_pins(topology, sizes(4), held))
    assert plan["vm0"] == Pins(cpus=(3, 4, 5, 15), nodes=(0, 2))
    assert plan_pins(topology, sizes(10), held) == {"vm0": None}


def test_even_vms_never_share_a_core() -> None:
    """NUMA-06: that is what even counts are good for."""
    plan = planned(plan_pins(machine(1, 4, threads=2), sizes(2, 2, 4)))
    cores = [{cpu // 2 for cpu in pins.cpus} for pins in plan.values()]
    assert sum(map(len, cores)) == len(set().union(*cores)) == 4


def test_halves_of_cores_come_last() -> None:
    held = {"odd": Holding(Pins(cpus=(0,)))}
    assert planned(plan_pins(machine(1, 2, threads=2), sizes(2), held))["vm0"].cpus == (2, 3)


def test_a_node_with_room_in_its_memory_comes_first() -> None:
    """NUMA-01: most free CPUs are no use where the memory would be remote."""
    topology = machine(2, 8, memory_mib=16384)
    held = {"big": Holding(Pins(cpus=(0, 1), nodes=(0,)), memory_mib=8000)}
    held |= {"small": Holding(Pins(cpus=(8, 9, 10, 11), nodes=(1,)), memory_mib=512)}
    plan = planned(plan_pins(topology, [Demand("new", 2, 4096)], held))
    assert plan["new"].nodes == (1,)
    assert planned(plan_pins(topology, [Demand("new", 2, 128)], held))["new"].nodes == (0,)


def test_a_socket_with_room_in_its_memory_comes_first() -> None:
    """NUMA-01: the same for a VM that takes several NUMA nodes of one socket."""
    topology = machine(2, 8, nodes=2, memory_mib=16384)
    held = {"big": Holding(Pins(cpus=(0,), nodes=(0,)), memory_mib=8000)}
    held |= {"small": Holding(Pins(cpus=(8, 9), nodes=(2,)), memory_mib=512)}
    plan = planned(plan_pins(topology, [Demand("new", 6, 4096)], held))
    assert plan["new"].nodes == (2, 3)


def test_memory_planned_for_one_vm_is_not_there_for_the_next() -> None:
    """NUMA-01."""
    topology = machine(2, 8, memory_mib=16384)
    plan = planned(plan_pins(topology, [Demand("a", 6, 8000), Demand("b", 6, 100)]))
    assert plan["a"].nodes == (0,) and plan["b"].nodes == (1,)
    held = {"c": Holding(Pins(cpus=(8, 9, 10, 11), nodes=(1,)), memory_mib=100)}
    plan = planned(plan_pins(topology, [Demand("a", 2, 8000), Demand("b", 2, 4096)], held))
    assert plan["a"].nodes == (0,) and plan["b"].nodes == (1,)


def test_one_numa_node_leaves_the_memory_no_choice() -> None:
    assert planned(plan_pins(machine(1, 4), sizes(2)))["vm0"] == Pins(cpus=(0, 1))


def test_the_buffers_cpus_are_nobodys() -> None:
    """NUMA-07: the boundary is exact."""
    assert planned(plan_pins(machine(1, 4), sizes(2), buffer=2))["vm0"].cpus == (2, 3)
    assert plan_pins(machine(1, 4), sizes(2), buffer=3) == {"vm0": None}


def assignments(count: int, sockets: int) -> Iterator[tuple[int, ...]]:
    """Every way to put so many VMs on sockets, each whole."""
    if count == 0:
        yield ()
        return
    for rest in assignments(count - 1, sockets):
        for socket in range(sockets):
            yield (*rest, socket)


def fullest(vcpus: Sequence[int], sockets: int) -> int:
    """Brute force: the load of the fullest socket in the best of all ways to place the VMs."""
    loads = (
        max(
            sum(size for size, place in zip(vcpus, way, strict=True) if place == socket)
            for socket in range(sockets)
        )
        for way in assignments(len(vcpus), sockets)
    )
    return min(loads)


@given(
    st.integers(2, 3),
    st.sampled_from([4, 6, 8]),
    st.lists(st.integers(1, 4).map(lambda half: 2 * half), min_size=1, max_size=6),
)
def test_against_brute_force(sockets: int, cores: int, vcpus: list[int]) -> None:
    """NUMA-08: Graham's bound when all are whole; never split where a socket had room."""
    vcpus = [min(count, cores) for count in vcpus]
    topology = machine(sockets, cores)
    plan = plan_pins(topology, sizes(*vcpus))
    loads = dict.fromkeys(range(sockets), 0)
    split = False
    for pins in plan.values():
        if pins is None:
            assert sum(vcpus) > topology.cpus
            return
        places = [cpu // cores for cpu in pins.cpus]
        if len(set(places)) > 1:
            split = True
            assert all(load + len(places) > cores for load in loads.values())
        for place in places:
            loads[place] += 1
    best = fullest(vcpus, sockets)
    if best > cores:
        assert split
    if not split:
        assert max(loads.values()) * 3 * sockets <= best * (4 * sockets - 1)


@given(st.integers(1, 4), st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=6))
def test_sizes_that_divide_each_other_are_placed_as_well_as_can_be(
    sockets: int, vcpus: list[int]
) -> None:
    """NUMA-08: for 2, 4 and 8 vCPUs greedy finds a way whenever brute force does."""
    plan = plan_pins(machine(sockets, 8), sizes(*vcpus))
    whole = all(pins and len({cpu // 8 for cpu in pins.cpus}) == 1 for pins in plan.values())
    assert whole == (fullest(vcpus, sockets) <= 8)


TOPOLOGIES = st.builds(
    machine,
    st.integers(1, 4),
    st.sampled_from([2, 4, 8]),
    threads=st.integers(1, 2),
    nodes=st.integers(1, 2),
)


@given(
    TOPOLOGIES,
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 8), st.booleans()), max_size=30),
    st.integers(0, 3),
)
def test_no_cpu_is_held_twice_over_any_sequence(
    topology: Topology, steps: list[tuple[int, int, bool]], buffer: int
) -> None:
    """NUMA-07, HOST-18: while the sum fits, each vCPU has a CPU of its own, outside the buffer."""
    held: dict[str, Holding] = {}
    for number, vcpus, destroy in steps:
        name = f"vm{number}"
        total = sum(len(holding.pins.cpus) for holding in held.values())
        if destroy:
            held.pop(name, None)
        elif name not in held:
            pins = plan_pins(topology, [Demand(name, vcpus)], held, buffer=buffer)[name]
            assert (pins is not None) == (total + vcpus <= topology.cpus - buffer)
            if pins is not None:
                held[name] = Holding(pins)
        cpus = [cpu for holding in held.values() for cpu in holding.pins.cpus]
        assert len(cpus) == len(set(cpus)) and set(cpus) <= set(range(buffer, topology.cpus))


@given(TOPOLOGIES, st.permutations(sizes(2, 4, 2, 1, 3)))
def test_the_order_asked_makes_no_difference(topology: Topology, demands: list[Demand]) -> None:
    """NUMA-04: deterministic."""
    assert plan_pins(topology, demands) == plan_pins(topology, sizes(2, 4, 2, 1, 3))


def node_of(topology: Topology, *specs: VmSpec, settings: Settings = SETTINGS) -> NodeState:
    """A node on which VMs were made one after the other."""
    node = make_node(cpus=topology.cpus, topology=topology, pinning=ENFORCED, settings=settings)
    for spec in specs:
        assert not list(refusals(spec, node))
        node = after(node, spec)
    return node


@given(TOPOLOGIES, st.lists(st.integers(1, 6), max_size=8), st.integers(64, 4096))
def test_a_guest_sees_the_numa_nodes_it_is_spread_over(
    topology: Topology, vcpus: list[int], memory_mib: int
) -> None:
    """NUMA-01: each vCPU and each MiB once, on the NUMA node it really is on."""
    for pins in plan_pins(topology, sizes(*vcpus)).values():
        cells = guest_cells(pins, memory_mib, topology)
        if pins is None or len(pins.nodes) < 2:
            assert cells == ()
            continue
        assert tuple(cell.node for cell in cells) == pins.nodes
        assert sorted(vcpu for cell in cells for vcpu in cell.vcpus) == [*range(len(pins.cpus))]
        assert sum(cell.memory_mib for cell in cells) == memory_mib
        of = {node.id: node.cpus for node in topology.numa_nodes}
        assert all(pins.cpus[vcpu] in of[cell.node] for cell in cells for vcpu in cell.vcpus)


def test_numa_nodes_that_are_no_more_are_not_shown() -> None:
    """A sidecar may be older than the machine's memory."""
    pins = Pins(cpus=(0, 4), nodes=(0, 1))
    assert [cell.vcpus for cell in guest_cells(pins, 512, machine(2, 4))] == [(0,), (1,)]
    assert guest_cells(pins, 512, machine(1, 8)) == guest_cells(None, 512, machine(2, 4)) == ()


def test_what_is_in_flight_is_held() -> None:
    """HOST-18: VMs that are judged one after the other are given different CPUs."""
    node = node_of(machine(2, 4), make_spec(name="a", vcpus=4), make_spec(name="b", vcpus=2))
    held = [vm.pinning.wanted for vm in node.vms]
    assert held == [Pins(cpus=(0, 1, 2, 3), nodes=(0,)), Pins(cpus=(4, 5), nodes=(1,))]
    assert choose_pins(make_spec(name="c"), node) == Pins(cpus=(6, 7), nodes=(1,))
    given_before = after(node, make_spec(name="c"), Pins(cpus=(7, 6)))
    view = given_before.vm("c")
    assert view is not None and view.pinning.wanted == Pins(cpus=(7, 6))


def test_a_stopped_vm_finds_its_cpus_again() -> None:
    node = node_of(machine(2, 4), make_spec(name="a", state="stopped"), make_spec(name="b"))
    assert choose_pins(make_spec(name="a"), node) == Pins(cpus=(0, 1), nodes=(0,))
    assert choose_pins(make_spec(name="a", vcpus=4), node) == Pins(cpus=(0, 1, 2, 3), nodes=(0,))


def test_a_spread_vm_is_gathered_at_its_next_start_not_while_it_runs() -> None:
    topology = machine(2, 4)
    node = after(node_of(topology, make_spec(name="a", vcpus=2)), make_spec(), Pins(cpus=(2, 4)))
    assert choose_pins(make_spec(), node) == Pins(cpus=(2, 4))
    stopped = make_spec(state="stopped")
    node = after(node, stopped, Pins(cpus=(2, 4)))
    pins = choose_pins(stopped, node)
    assert pins is not None and len(sockets_of(pins, topology)) == 1


@pytest.mark.parametrize("cpus", [(0,), (0, 0), (0, 99), (2, 3)])
def test_pins_that_cannot_be_are_chosen_anew(cpus: tuple[int, ...]) -> None:
    """Too few, one twice, not there, or another's."""
    node = node_of(machine(1, 8), make_spec(name="a"), make_spec(name="b"))
    view = make_view(make_spec(), pinning=VmPinning(wanted=Pins(cpus=cpus)))
    node = node.model_copy(update={"vms": (*node.vms, view)})
    assert choose_pins(make_spec(), node) == Pins(cpus=(4, 5))


def test_nothing_is_pinned_where_it_takes_no_effect() -> None:
    node = make_node(topology=machine(1, 8))
    assert choose_pins(make_spec(), node) is None


def test_buffer_of_the_settings_counts() -> None:
    settings = Settings(vcpu_buffer=2, memory_buffer_mib=512)
    assert choose_pins(make_spec(), node_of(machine(1, 8), settings=settings)) == Pins(cpus=(2, 3))


def test_pinning_needs_every_cpu_the_node_shows() -> None:
    """NUMA-03: with the reason where it cannot be."""
    assert pinning_support(machine(1, 4), range(4)).enforced
    limited = pinning_support(machine(1, 8), (0, 1))
    assert not limited.enforced and "CPUs 2, 3, 4, 5, ..." in limited.reason
