"""What a node accepts: boundaries, numbers and stable codes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.model import (
    Image,
    LedgerGrant,
    LedgerStatus,
    LibvirtStatus,
    NodeState,
    Problem,
    Settings,
    Unmanaged,
    VmDisk,
    VmMemory,
)
from ppn.host.policy import ActionKind, admit, plan, refusals
from ppn.host.spec import VmSpec
from tests.unit.host.builders import make_node, make_spec, make_view


def codes(spec: VmSpec, node: NodeState) -> list[str]:
    return [refusal.code for refusal in refusals(spec, node)]


def test_a_fitting_vm_is_admitted() -> None:
    admit(make_spec(), make_node())


def test_vcpus_up_to_the_largest_sockets_cores() -> None:
    """NUMA-05: equal is accepted, more is refused with the numbers."""
    settings = Settings(allow_odd_vcpus=True, memory_buffer_mib=512)
    node = make_node(cpus=16, cores=4, settings=settings)
    admit(make_spec(vcpus=4), node)
    with pytest.raises(Refusal) as refused:
        admit(make_spec(vcpus=5), node)
    assert refused.value.code == "vcpus_exceed_socket"
    assert (refused.value.wanted, refused.value.free, refused.value.unit) == (5, 4, "vCPU")


@pytest.mark.parametrize("vcpus", [1, 3, 5])
def test_odd_vcpus_are_refused_unless_the_node_allows_them(vcpus: int) -> None:
    """NUMA-06."""
    assert codes(make_spec(vcpus=vcpus), make_node()) == ["vcpus_odd"]
    node = make_node(settings=Settings(allow_odd_vcpus=True, memory_buffer_mib=512))
    assert codes(make_spec(vcpus=vcpus), node) == []


@pytest.mark.parametrize("vcpus", [2, 4])
def test_even_vcpus_are_accepted(vcpus: int) -> None:
    """NUMA-06."""
    assert codes(make_spec(vcpus=vcpus), make_node()) == []


def test_vcpu_sum_has_an_exact_boundary() -> None:
    """NUMA-07: the sum of all vCPUs is at most CPUs less buffer, stopped VMs included."""
    other = make_view(make_spec(name="other", vcpus=4, state="stopped"))
    node = make_node(other, cpus=8, settings=Settings(vcpu_buffer=2, memory_buffer_mib=512))
    assert codes(make_spec(vcpus=2), node) == []
    assert codes(make_spec(vcpus=4), node) == ["vcpus_exhausted"]


def test_more_memory_than_the_node_has() -> None:
    assert "memory_exceeds_node" in codes(make_spec(memory_mib=8192), make_node())


def test_minimums_and_buffer_fit_physical_memory_exactly() -> None:
    """BAL-07: what stopped VMs keep counts as well."""
    other = make_view(make_spec(name="other", memory_mib=4096, state="stopped"))
    node = make_node(other, physical_mib=8192, buffer_mib=512)
    assert codes(make_spec(memory_mib=3584), node) == []
    assert codes(make_spec(memory_mib=3585), node) == ["memory_exhausted"]


def test_a_small_minimum_admits_what_a_whole_memory_would_not() -> None:
    other = make_view(
        make_spec(name="other", memory_mib=4096),
        memory=VmMemory(maximum_mib=4096, minimum_mib=4096, current_mib=1024),
    )
    node = make_node(other, free_mib=7000)
    assert codes(make_spec(memory_mib=4096), node) == ["memory_exhausted"]
    grants = (LedgerGrant(vm="web", weight=100, minimum_mib=1024),)
    assert codes(make_spec(memory_mib=4096), make_node(other, free_mib=7000, grants=grants)) == []
    assert list(refusals(make_spec(memory_mib=4096), node, minimum_mib=1024)) == []


def test_a_starting_vm_needs_its_whole_memory_free_now() -> None:
    assert codes(make_spec(memory_mib=1024), make_node(free_mib=1000)) == ["memory_not_free"]
    assert codes(make_spec(memory_mib=1024, state="stopped"), make_node(free_mib=1000)) == []


def test_minimum_above_memory() -> None:
    grants = (LedgerGrant(vm="web", weight=100, minimum_mib=1024),)
    found = codes(make_spec(memory_mib=512), make_node(grants=grants))
    assert found == ["minimum_exceeds_memory"]


def test_disk_room_counts_what_other_disks_may_still_grow_by() -> None:
    """HOST-11: the constraint is named with its numbers."""
    node = make_node(free_disk_mib=4096)
    node = node.model_copy(update={"disk": node.disk.model_copy(update={"promised_mib": 1024})})
    assert codes(make_spec(disk_gib=3), node) == []
    with pytest.raises(Refusal) as refused:
        admit(make_spec(disk_gib=2, disks=[{"name": "data", "size_gib": 2}]), node)
    assert refused.value.as_dict() | {"code": "disk_exhausted", "wanted": 4096, "free": 3072} == (
        refused.value.as_dict()
    )


def test_image_must_be_there_and_fit() -> None:
    assert codes(make_spec(image="debian"), make_node()) == ["image_unknown"]
    node = make_node(images=(Image(name="debian", digest="0", disk_mib=2049),))
    assert codes(make_spec(image="debian", disk_gib=2), node) == ["disk_below_image"]
    assert codes(make_spec(image="debian", disk_gib=3), node) == []
    extra = make_spec(image="debian", disk_gib=3, cmdline_extra="quiet")
    assert codes(extra, node) == ["cmdline_without_kernel"]


def test_names_of_others_are_left_alone() -> None:
    node = make_node(unmanaged=(Unmanaged(name="web", kind="domain"),))
    assert codes(make_spec(), node) == ["name_taken"]
    assert codes(make_spec(state="absent"), node) == ["name_taken"]


def test_silent_libvirt_is_a_refusal() -> None:
    problem = Problem(code="x", message="down")
    node = make_node(libvirt=LibvirtStatus(ok=False, error=problem))
    assert codes(make_spec(), node)[0] == "libvirt_unavailable"


def test_unusable_ledger_stops_starts_but_not_stops() -> None:
    """CPU-03: no VM starts on figures that nobody vouches for."""
    ledger = LedgerStatus(ok=False, error=Problem(code="x", message="entry 3"))
    assert codes(make_spec(), make_node(ledger=ledger)) == ["ledger_unusable"]
    running = make_view(make_spec())
    node = make_node(running, ledger=ledger)
    assert codes(make_spec(), node) == []
    assert codes(make_spec(state="stopped"), node) == []
    assert codes(make_spec(state="absent"), node) == []


def test_a_vm_whose_qemu_is_silent_may_only_go() -> None:
    """HLT-06: nothing is known of it, so nothing is done on a guess; others are served."""
    silent = make_view(make_spec()).model_copy(update={"state": "unknown"})
    node = make_node(silent)
    for state in ("running", "stopped"):
        assert codes(make_spec(state=state), node)[0] == "qemu_silent"
    assert codes(make_spec(name="other"), node) == []
    assert codes(make_spec(state="absent"), node) == []
    ended, *_ = plan(make_spec(state="absent"), silent)
    assert ended.kind is ActionKind.STOP
    down = make_node(silent, libvirt=LibvirtStatus(ok=False))
    assert codes(make_spec(), down)[0] == "libvirt_unavailable"
    assert "qemu_silent" not in codes(make_spec(), down)


@pytest.mark.parametrize("condition", ["missing", "damaged"])
def test_unreadable_sidecar_allows_removal_only(condition: str) -> None:
    """HOST-05: what a VM was is never guessed."""
    known = make_view(make_spec())
    view = known.model_copy(update={"sidecar": condition, "spec": None, "phase": None})
    assert codes(make_spec(), make_node(view))[0] == f"sidecar_{condition}"
    assert codes(make_spec(state="absent"), make_node(view)) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"owner": "tenant"}, "owner_fixed"),
        ({"image": "other"}, "image_fixed"),
        ({"vcpus": 4}, "vm_running"),
        ({"memory_mib": 256}, "vm_running"),
        ({"cmdline_extra": "x"}, "vm_running"),
        ({"disk_gib": 1}, "disk_shrinks"),
        ({"disks": []}, "disk_undeclared"),
    ],
)
def test_changes_that_cannot_be_made(change: dict[str, Any], code: str) -> None:
    was = {"disk_gib": 2, "disks": [{"name": "data", "size_gib": 1}]}
    node = make_node(
        make_view(make_spec(**was)),
        images=(Image(name="tiny", digest="0", direct_boot=True), Image(name="other", digest="1")),
    )
    assert codes(make_spec(**(was | change)), node) == [code]


def test_a_kept_disk_comes_back_at_its_size_or_larger() -> None:
    """DISK-01, DISK-05: what was detached is declared again; it does not shrink either."""
    view = make_view(make_spec())
    kept = VmDisk(name="data", size_mib=2048, detached=True)
    node = make_node(view.model_copy(update={"disks": (*view.disks, kept)}))
    assert codes(make_spec(disks=[{"name": "data", "size_gib": 2}]), node) == []
    assert codes(make_spec(disks=[{"name": "data", "size_gib": 1}]), node) == ["disk_shrinks"]


def test_lost_disk_is_not_replaced_by_an_empty_one() -> None:
    view = make_view(make_spec(), disks=())
    assert codes(make_spec(), make_node(view)) == ["disk_lost"]


def test_a_half_made_vm_may_become_anything() -> None:
    view = make_view(make_spec(), phase="creating", state="missing", disks=())
    assert codes(make_spec(vcpus=4), make_node(view)) == []


def test_converged_vm_is_admitted_whatever_the_node_has_left() -> None:
    view = make_view(make_spec(vcpus=3))
    assert codes(make_spec(vcpus=3), make_node(view, cpus=2, physical_mib=600, free_mib=0)) == []


def test_growing_while_stopped_counts_only_the_difference() -> None:
    disks = (VmDisk(name="root", size_mib=1024),)
    view = make_view(make_spec(state="stopped", vcpus=6), disks=disks)
    node = make_node(view, free_disk_mib=1024)
    assert codes(make_spec(state="stopped", vcpus=8, disk_gib=2), node) == []


SPECS = st.builds(
    lambda name, vcpus, memory, disk: make_spec(
        name=name, vcpus=vcpus, memory_mib=memory, disk_gib=disk
    ),
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.integers(1, 8),
    st.integers(64, 4096),
    st.integers(1, 4),
)


@given(st.lists(st.tuples(SPECS, st.booleans()), max_size=20))
def test_sums_hold_over_any_sequence(operations: list[tuple[VmSpec, bool]]) -> None:
    """NUMA-07, BAL-07: spawn and destroy as you like, the sums stay within the node."""
    vms: dict[str, VmSpec] = {}
    settings = Settings(vcpu_buffer=1, memory_buffer_mib=512, allow_odd_vcpus=True)
    for spec, destroy in operations:
        node = make_node(
            *map(make_view, vms.values()), cpus=9, physical_mib=6144, settings=settings
        )
        if destroy:
            vms.pop(spec.name, None)
        elif spec.name not in vms and not codes(spec, node):
            vms[spec.name] = spec
        assert sum(vm.vcpus for vm in vms.values()) <= 9 - 1
        assert sum(vm.memory_mib for vm in vms.values()) <= 6144 - 512
