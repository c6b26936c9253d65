"""What an inventory declares is judged whole, host by host, before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploys.declared import (
    Declaration,
    admission_problems,
    as_this_run_leaves,
    declare,
    declared_twice,
    wanted_ledger,
)
from ppn.host.forecast import after, blank_node
from ppn.host.model import DiskPool, Image, NodeState, Settings, Socket, Topology
from ppn.host.policy import plan, refusals
from ppn.pool.ledger import Grant, Withdrawal

SMALL: dict[str, Any] = {
    "name": "web",
    "image": "tiny",
    "vcpus": 2,
    "memory_mib": 512,
    "minimum_mib": 256,
    "weight": 300,
}


def node(cpus: int = 8, memory_mib: int = 8192, buffer_mib: int = 512) -> NodeState:
    topology = Topology(
        cpus=cpus,
        sockets=(Socket(id=0, cpus=tuple(range(cpus)), cores=cpus),),
        memory_mib=memory_mib,
    )
    disk = DiskPool(total_mib=100_000, free_mib=100_000, promised_mib=0)
    images = (Image(name="tiny", digest="00", direct_boot=True),)
    return blank_node(Settings(name="n", memory_buffer_mib=buffer_mib), topology, disk, images)


def declared(*vms: dict[str, Any], **data: Any) -> Declaration:
    return declare("n", {"vms": list(vms), **data})


def problems(*vms: dict[str, Any], **data: Any) -> list[str]:
    declaration = declared(*vms, **data)
    return [*declaration.problems, *admission_problems(declaration, node())]


def test_sound_declaration() -> None:
    declaration = declared(SMALL)
    assert declaration.problems == ()
    assert declaration.changes == (Grant("web", 300, 256),)
    assert problems(SMALL) == []


@pytest.mark.parametrize(
    ("change", "code", "value"),
    [
        ({"memory_mib": 99_999}, "memory_exceeds_node", "99999"),
        ({"vcpus": 3}, "vcpus_odd", "3"),
        ({"vcpus": 10}, "vcpus_exceed_socket", "10"),
        ({"disk_gib": 200}, "disk_exhausted", "204800"),
        ({"image": "windows"}, "image_unknown", "windows"),
        ({"weight": 0}, "weight_out_of_range", "0"),
        ({"weight": 10_001}, "weight_out_of_range", "10001"),
        ({"minimum_mib": -1}, "minimum_out_of_range", "-1"),
        ({"minimum_mib": 1024}, "minimum_exceeds_memory", "1024"),
        ({"memory": 1}, "spec_invalid", "memory"),
        ({"name": "Web"}, "spec_invalid", "Web"),
        ({"vcpus": "2"}, "spec_invalid", "2"),
    ],
)
def test_bad_values_are_refused_with_code_and_value(
    change: dict[str, Any], code: str, value: str
) -> None:
    """HOST-11, NUMA-05, NUMA-06: the binding constraint is named before anything is done."""
    text = "\n".join(problems({**SMALL, **change}))
    assert f"({code})" in text
    assert value in text


def test_several_vms_are_judged_together() -> None:
    """NUMA-07: each fits alone, all of them do not."""
    vms = [{**SMALL, "name": f"vm{i}", "vcpus": 2} for i in range(5)]
    assert [text for text in problems(*vms) if "vcpus_exhausted" in text and "vm4" in text]
    assert problems(*vms[:4]) == []


def test_minimums_together_must_fit_the_memory() -> None:
    """BAL-07: the sum of minimums is bounded though no VM is too large."""
    vms = [
        {**SMALL, "name": f"vm{i}", "memory_mib": 3000, "minimum_mib": 3000, "state": "stopped"}
        for i in range(3)
    ]
    assert any("memory_exhausted" in text for text in problems(*vms))


def test_a_removal_makes_room_for_what_is_declared_before_it() -> None:
    full = node(cpus=2)
    old = declared({**SMALL, "name": "old"})
    full = after(as_this_run_leaves(full, old), old.specs[0])
    swap = declared({**SMALL, "name": "new"}, {**SMALL, "name": "old", "state": "absent"})
    assert admission_problems(swap, full) == []


def test_the_same_name_twice() -> None:
    assert any("vm_declared_twice" in text for text in problems(SMALL, SMALL))
    both = declared_twice({"a": declared(SMALL), "b": declared(SMALL)})
    assert both.keys() == {"a", "b"}
    moved = {"a": declared({**SMALL, "state": "absent"}), "b": declared(SMALL)}
    assert declared_twice(moved) == {}


def test_a_vm_that_lives_elsewhere_keeps_its_grant() -> None:
    gone = declared({**SMALL, "state": "absent"})
    assert wanted_ledger([gone]) == {"web": Withdrawal("web")}
    assert wanted_ledger([declared(SMALL), gone]) == {"web": Grant("web", 300, 256)}
    assert wanted_ledger([gone, declared(SMALL)]) == {"web": Grant("web", 300, 256)}


def test_bad_settings_are_named() -> None:
    assert "vcpu_buffer" in problems(SMALL, vcpu_buffer=-1)[0]


SPECS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b", "c", "d"]),
            "image": st.just("tiny"),
            "vcpus": st.sampled_from([2, 4, 6]),
            "memory_mib": st.integers(64, 6000),
            "disk_gib": st.integers(1, 60),
            "state": st.sampled_from(["running", "stopped", "absent"]),
        }
    ),
    max_size=12,
)


@given(SPECS)
def test_admitted_vms_never_exceed_the_node(vms: list[dict[str, Any]]) -> None:
    """NUMA-07, BAL-07: whatever is admitted, sums stay within CPUs, memory and disk."""
    now = node(buffer_mib=0)
    for vm in vms:
        declaration = declared(vm)
        now = as_this_run_leaves(now, declaration)
        (spec,) = declaration.specs
        if any(True for _ in refusals(spec, now)):
            continue
        now = after(now, spec)
        assert not plan(spec, now.vm(spec.name)), "what is as declared needs no step"
        known = [view.spec for view in now.vms if view.spec is not None]
        assert sum(spec.vcpus for spec in known) == now.pool.vcpus_allocated <= now.pool.vcpus
        minimums = sum(view.memory.minimum_mib for view in now.vms)
        assert now.pool.available_mib == now.pool.physical_mib - minimums
        held = sum(view.memory.current_mib or 0 for view in now.vms)
        assert held <= now.pool.physical_mib
        assert now.disk.promised_mib <= now.disk.free_mib
