"""The lock table: nothing is promised twice, whatever comes in which order."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.agent.table import AgentBusy, LockTable, Section, Thing, claimed
from ppn.host.apply import prepare
from ppn.host.forecast import after, with_in_flight
from ppn.host.model import NodeState
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
    node = make_node(*(make_view(spec) for spec in specs.values()))
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


things = st.frozensets(
    st.builds(Thing, st.sampled_from(["core", "port"]), st.sampled_from(list("0123"))), max_size=4
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), things), max_size=30))
def test_no_thing_is_held_twice(claims: list[tuple[str, frozenset[Thing]]]) -> None:
    """HOST-18: a claim is taken whole or refused whole; what each holds sums to what is taken."""
    details: dict[str, frozenset[Thing]] = {}
    for vm, wanted in claims:
        others = frozenset[Thing]().union(*(held for name, held in details.items() if name != vm))
        before = dict(details)
        try:
            details = claimed(details, vm, wanted)
        except Refusal as refused:
            assert refused.code in ("core_taken", "port_taken") and wanted & others
            assert details == before
        else:
            assert not wanted & others
        every = [thing for held in details.values() for thing in held]
        assert len(every) == len(set(every))


def test_claims_end_with_their_operations() -> None:
    table = LockTable()
    port = frozenset({Thing("port", "30000")})
    with table.operation("a", "spawn", "1"), table.operation("b", "spawn", "2"):
        table.claim("a", port)
        with pytest.raises(Refusal) as taken:
            table.claim("b", port)
        assert taken.value.code == "port_taken"
    with table.operation("b", "spawn", "3"):
        table.claim("b", port)


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
    ports = [Thing("port", str(number)) for number in range(8)]
    taken: set[Thing] = set()
    wrong: list[str] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        for turn in range(ROUNDS):
            spec = make_spec(name=f"vm-{number}-{turn}", memory_mib=1024)
            try:
                with table.operation(spec.name, "spawn", "test"):
                    with table.aggregate.held():
                        node = with_in_flight(live(dict(there)), table.in_flight())
                        prepare(spec, node)
                        table.reserve(spec.name, spec)
                    with table.detailed.held():
                        port = chance.choice(ports)
                        table.claim(spec.name, frozenset({port}))
                    if port in taken:
                        wrong.append(f"{port} twice")
                    taken.add(port)
                    there[spec.name] = spec
                    if sum(other.vcpus for other in there.values()) > 8:
                        wrong.append("overcommitted")
                    # The VM is removed again within the same operation.
                    taken.discard(port)
                    del there[spec.name]
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
