"""What may still be placed on a node, from what it says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.fleet.model import MARGIN_MIB, WHOLE, Demand, demand_of, used_share, view_of
from ppn.fleet.policy import refusals
from ppn.host.forecast import after
from ppn.host.model import Image, NodeState, Pool, Settings
from ppn.host.policy import refusals as node_refusals
from ppn.host.spec import spec_from_data
from ppn.wire.fleet import VmOrder
from ppn.wire.heartbeat import Heartbeat
from tests.unit.fleet.builders import demand, heartbeat, report
from tests.unit.host.builders import make_node


def pool(**fields: int) -> Pool:
    usual = dict.fromkeys(Pool.model_fields, 0)
    return Pool(**(usual | {"physical_mib": 10000, "reserved_mib": 1000} | fields))


def test_memory_is_the_smaller_of_what_is_promised_and_what_is_there() -> None:
    """FLEET-14: and a placement counts against both."""
    promised = heartbeat("a", pool=pool(available_mib=5000, startable_mib=9000))
    there = heartbeat("a", pool=pool(available_mib=9000, startable_mib=5000))
    assert view_of(promised).free_memory_mib == 4000 - MARGIN_MIB
    assert view_of(there).free_memory_mib == 5000 - MARGIN_MIB
    small = demand(memory_mib=100)
    assert view_of(promised, [small]).free_memory_mib == 3900 - MARGIN_MIB
    assert view_of(there, [small]).free_memory_mib == 4900 - MARGIN_MIB


def test_destroyed_vm_gives_back_what_it_held() -> None:
    """FLEET-01: a ballooned one its present memory there, its minimum of the promise."""
    vm = report(memory_mib=4096, current_mib=2048, minimum_mib=1024)
    full = {"available_mib": 5000, "startable_mib": 5000}
    view = view_of(heartbeat("a", vm, pool=pool(**full)), gone=[vm])
    assert view.free_memory_mib == 5000 - 1000 + 1024 - MARGIN_MIB
    stopped = report(current_mib=None)
    view = view_of(
        heartbeat("a", stopped, pool=pool(**full | {"startable_mib": 3000})), gone=[stopped]
    )
    assert view.free_memory_mib == 3000 - MARGIN_MIB


def test_buffer_and_promises_are_taken_off() -> None:
    """FLEET-05."""
    figures = pool(vcpus=16, vcpu_buffer=3, vcpus_allocated=5)
    view = view_of(heartbeat("a", pool=figures))
    assert (view.vcpus, view.free_vcpus, view.memory_mib) == (13, 8, 9000)


@pytest.mark.parametrize(
    ("whole", "free", "share"),
    [(10, 10, 0), (10, 5, WHOLE // 2), (10, 0, WHOLE), (10, -5, WHOLE), (10, 15, 0), (0, 0, WHOLE)],
)
def test_share_of_a_resource(whole: int, free: int, share: int) -> None:
    assert used_share(whole, free) == share


def beat_of(state: NodeState) -> Heartbeat:
    """What an agent says of a node in this state, as far as placement reads it."""
    return heartbeat(
        "a",
        allow_odd_vcpus=state.settings.allow_odd_vcpus,
        topology=state.topology,
        pool=state.pool,
        disk=state.disk,
        images=state.images,
    )


ORDERS = st.lists(
    st.builds(
        VmOrder,
        owner=st.just("acme"),
        image=st.sampled_from(["tiny", "tiny", "big"]),
        vcpus=st.integers(1, 6),
        memory_mib=st.sampled_from([512, 1024, 3000, 7168]),
        disk_gib=st.sampled_from([1, 2, 40]),
    ),
    max_size=8,
)


@given(ORDERS, st.booleans(), st.integers(4000, 8192), st.sampled_from([2, 4, 8]))
def test_placement_accepts_what_the_node_accepts_beyond_the_margin(
    orders: list[VmOrder], odd: bool, there: int, cores: int
) -> None:
    """HOST-12: the node's own rules, and only the margin in between; debits as it forecasts."""
    state = make_node(
        cpus=8,
        cores=cores,
        free_mib=there,
        settings=Settings(allow_odd_vcpus=odd, memory_buffer_mib=512, vcpu_buffer=1),
        images=(Image(name="tiny", digest="0"), Image(name="big", digest="0", disk_mib=2048)),
    )
    first = beat_of(state)
    placed: list[Demand] = []
    for number, order in enumerate(orders):
        wanted = demand_of(order)
        fields = order.model_dump(include={"owner", "image", "vcpus", "memory_mib", "disk_gib"})
        spec = spec_from_data({"name": f"vm-{number}", **fields})
        found = [one.code for one in refusals(wanted, view_of(first, placed))]
        of_node = [one.code for one in node_refusals(spec, state)]
        if not found:
            assert of_node == []
            placed.append(wanted)
            state = after(state, spec)
            assert view_of(beat_of(state)).free_memory_mib == view_of(first, placed).free_memory_mib
            assert view_of(beat_of(state)).free_vcpus == view_of(first, placed).free_vcpus
            assert view_of(beat_of(state)).free_disk_mib == view_of(first, placed).free_disk_mib
        elif found != ["memory_exhausted"]:
            assert of_node != []
