"""The lock table: nothing is promised twice, whatever comes in which order."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.agent.table import AgentBusy, LockTable, Section, claimed
from ppn.host.apply import prepare
from ppn.host.forecast import after, with_in_flight, with_pins
from ppn.host.model import Enforcement, NodeState, Pins
from ppn.host.numa import choose_pins
from ppn.host.plan import MIB_PER_GIB
from ppn.host.spec import VmSpec
from tests.unit.host.builders import make_node, make_spec, make_view

NAMES = ("a", "b", "c", "d", "e", "f")
THREADS = 50
ROUNDS = 40

sizes = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from([2, 4]),
    st.sampled_from([256, 1024, 3072]),
    st.sampled_from([1, 8, 40]),
    st.sampled_from(["running", "stopped", "absent"]),
)
steps = st.lists(
    st.one_of(st.tuples(st.just("begin"), sizes), st.tuples(st.sampled_from(["end", "fail"]))),
    max_size=40,
)


def live(specs: dict[str, VmSpec]) -> NodeState:
    """The node with these VMs on it, its figures summed up anew."""
    node = make_node(
        *(make_view(spec) for spec in specs.values()), pinning=Enforcement(enforced=True)
    )
    promised = sum(spec.promised_gib for spec in specs.values()) * MIB_PER_GIB
    return node.model_copy(update={"disk": node.disk.model_copy(update={"promised_mib": promised})})


def held(live: VmSpec | None, flying: VmSpec | None) -> dict[str, int]:
    """What a VM holds at the most: as it is, and as it shall be."""
    found = {"vcpus": 0, "minimum": 0, "running": 0, "disk": 0}
    for spec in (live, flying):
        if spec is not None and spec.state != "absent":
            figures = {
                "vcpus": spec.vcpus,
                "minimum": spec.memory_mib,
                "running": spec.memory_mib if spec.state == "running" else 0,
                "disk": spec.promised_gib * MIB_PER_GIB,
            }
            found = {name: max(found[name], value) for name, value in figures.items()}
    return found


@given(steps)
def test_aggregate_is_live_and_in_flight(
    steps: list[tuple[str] | tuple[str, tuple[str, int, int, int, str]]],
) -> None:
    """HOST-17: after every step the sums are those of all VMs and changes, and never too much."""
    table = LockTable()
    there: dict[str, VmSpec] = {}
    flying: dict[str, tuple[VmSpec, ExitStack]] = {}
    for step in steps:
        if len(step) == 2:
            name, vcpus, memory, disk, state = step[1]
            given = {"vcpus": vcpus, "memory_mib": memory, "disk_gib": disk, "state": state}
            spec = make_spec(name=name, **given)
            entry = ExitStack()
            try:
                entry.enter_context(table.operation(name, "spawn", "test"))
                others = [other for other in table.in_flight() if other.name != name]
                prepare(spec, with_in_flight(live(there), others))
            except Refusal:
                entry.close()
                continue
            table.reserve(name, spec)
            flying[name] = (spec, entry)
        elif flying:
            name = sorted(flying)[0]
            spec, entry = flying.pop(name)
            if step[0] == "end" and spec.state == "absent":
                there.pop(name, None)
            elif step[0] == "end":
                there[name] = spec
            entry.close()
        counted = with_in_flight(live(there), table.in_flight())
        each = [held(there.get(n), flying[n][0] if n in flying else None) for n in NAMES]
        sums = {key: sum(one[key] for one in each) for key in each[0]}
        pool = counted.pool
        assert pool.vcpus_allocated == sums["vcpus"] <= pool.vcpus
        assert pool.physical_mib - pool.available_mib == sums["minimum"]
        assert pool.available_mib >= pool.reserved_mib
        assert pool.startable_mib == pool.physical_mib - pool.reserved_mib - sums["running"] >= 0
        assert counted.disk.promised_mib == sums["disk"] <= counted.disk.free_mib
    while flying:
        flying.popitem()[1][1].close()
    assert table.in_flight() == () and table.going() == ()


def test_effect_that_shows_already_is_not_counted_twice() -> None:
    """HOST-17: a VM that runs while its operation is still in flight."""
    spec = make_spec()
    node = live({"web": spec})
    assert with_in_flight(node, [spec]).pool == node.pool
    assert with_in_flight(live({}), [spec]).pool == node.pool == after(live({}), spec).pool


cpus = st.lists(st.integers(0, 5), max_size=4, unique=True)
pins = st.none() | st.builds(Pins, cpus=cpus.map(tuple))


@given(st.lists(st.tuples(st.sampled_from(NAMES), pins), max_size=30))
def test_no_cpu_is_held_twice(claims: list[tuple[str, Pins | None]]) -> None:
    """HOST-18: a claim is taken whole or refused whole; what each holds sums to what is taken."""
    details: dict[str, Pins] = {}
    for vm, wanted in claims:
        others = {cpu for name, held in details.items() if name != vm for cpu in held.cpus}
        taken = wanted is not None and bool(set(wanted.cpus) & others)
        before = dict(details)
        try:
            details = claimed(details, vm, wanted)
        except Refusal as refused:
            assert refused.code == "cpu_taken" and taken
            assert details == before
        else:
            assert not taken and details.get(vm) == wanted
        every = [cpu for held in details.values() for cpu in held.cpus]
        assert len(every) == len(set(every))


def test_what_the_table_knows_of_cpus() -> None:
    """HOST-18: a failed operation gives back what it took; a read never overrules one in flight."""
    table = LockTable()
    one, two, three = (Pins(cpus=(number,)) for number in (1, 2, 3))
    table.learn({"a": one}, busy=())
    with pytest.raises(ZeroDivisionError), table.operation("a", "resize", "1"):
        table.claim("a", two)
        raise ZeroDivisionError
    assert table.details() == {"a": one}
    with table.operation("b", "spawn", "2"):
        table.claim("b", two)
        # Read before its sidecar was written.
        table.learn({"a": three}, busy={"b"})
        assert table.details() == {"a": three, "b": two}
    assert table.details() == {"a": three, "b": two}
    table.learn({}, busy=())
    assert table.details() == {}


def test_cpus_are_chosen_beside_those_the_table_knows() -> None:
    """HOST-18: also beside a VM made since the node was read."""
    enforced = Enforcement(enforced=True)
    node = make_node(make_view(make_spec(name="a")), pinning=enforced)
    held = {"a": Pins(cpus=(0, 1)), "b": Pins(cpus=(2, 3))}
    spec = make_spec(name="c", vcpus=4)
    chosen = choose_pins(spec, with_pins(node, held, "c"))
    assert chosen is not None and chosen.cpus == (4, 5, 6, 7)
    assert not choose_pins(spec, with_pins(node, held | {"d": Pins(cpus=(4,))}, "c"))


def test_one_operation_per_vm() -> None:
    """HOST-16: the second is refused; the entry goes however the first ends."""
    table = LockTable()
    with pytest.raises(ZeroDivisionError), table.operation("web", "stop", "1"):
        with (
            pytest.raises(Refusal, match="stop is going on") as busy,
            table.operation("web", "start", "2"),
        ):
            pass
        assert busy.value.code == "vm_busy"
        raise ZeroDivisionError
    assert table.going() == ()
    with table.operation("web", "start", "3"):
        assert [entry.operation for entry in table.going()] == ["start"]


def test_what_ended_since_a_moment_is_known() -> None:
    """A look that overlaps an operation is told so, also when that has ended meanwhile."""
    table = LockTable()
    with table.operation("a", "spawn", "1"):
        mark = table.mark()
        assert table.changed_since(mark) == {"a"}
    assert table.changed_since(mark) == {"a"}
    assert table.changed_since(table.mark()) == frozenset()


def test_section_gives_up_in_time() -> None:
    section = Section("aggregate")
    with section.held():
        thread = threading.Thread(target=lambda: None)
        thread.start()
        with pytest.raises(AgentBusy, match="aggregate"), section.held(timeout=0.01):
            pass
        thread.join()
    with section.held(timeout=0.01):
        pass
    assert section.holds.count == 2


def test_fifty_threads_never_overcommit(capsys: pytest.CaptureFixture[str]) -> None:
    """HOST-16, HOST-18, HOST-19: 50 threads; how long the section was held is printed."""
    table = LockTable()
    there: dict[str, VmSpec] = {}
    taken: dict[str, Pins] = {}
    wrong: list[str] = []
    checking = threading.Lock()

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            spec = make_spec(name=f"vm-{number}-{turn}", memory_mib=1024)
            try:
                with table.operation(spec.name, "spawn", "test"):
                    with table.aggregate.held():
                        flying = table.in_flight()
                        with checking:
                            node = with_in_flight(live(there), flying)
                        prepare(spec, node)
                        table.reserve(spec.name, spec)
                    with table.detailed.held():
                        pins = choose_pins(spec, with_pins(node, table.details(), spec.name))
                        table.claim(spec.name, pins)
                    with checking:
                        taken[spec.name] = pins or Pins(cpus=())
                        there[spec.name] = spec
                        every = [cpu for held in taken.values() for cpu in held.cpus]
                        if len(every) != len(set(every)):
                            wrong.append(f"a CPU twice: {taken}")
                        # Every admitted VM of this node finds CPUs of its own.
                        if (
                            sum(other.vcpus for other in there.values()) != len(every)
                            or pins is None
                        ):
                            wrong.append(f"sums differ: {taken}")
                    with checking:
                        del taken[spec.name], there[spec.name]
                    # As after a destroy: the VM is gone, and the next read says so.
                    table.claim(spec.name, None)
            except Refusal:
                continue

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and there == {} and table.going() == ()
    assert table.aggregate.count >= THREADS * ROUNDS
    with capsys.disabled():
        print(f"\naggregate section held: {table.aggregate.holds}")
