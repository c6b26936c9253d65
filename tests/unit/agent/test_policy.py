"""Whom the agent serves, what a change makes of a VM, which tickets are good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.agent.client import operation_of
from ppn.host.agent.policy import Role, check_operation, needs_ticket, role_of, wanted
from ppn.host.agent.tickets import Tickets
from ppn.host.model import VmView
from ppn.host.spec import SpecInvalid
from ppn.wire.agent import Attach, Destroy, Operation, Resize, Spawn, Start, Stop, Ticket
from tests.unit.host.builders import UUID, make_node, make_spec, make_view

CHANGES = (
    *("spawn", "destroy", "stop", "start", "resize"),
    *("attach", "detach", "attach_nvme", "detach_nvme"),
)
QUESTIONS = ("list", "show", "node", "timeline", "console")
ROOT_ONLY = ("apply", "enforce", "balloon", "probe_kvm")
NONCE = "0" * 32
DAMAGED = make_view(make_spec()).model_copy(update={"spec": None, "sidecar": "damaged"})


def operation(name: str) -> Operation:
    """An operation of each kind."""
    spec = make_spec().model_dump()
    fields: dict[str, dict[str, object]] = {
        "spawn": {"vm": spec},
        "apply": {"vm": spec},
        "attach": {"vm": "web", "disk": {"name": "data", "size_gib": 1}},
        "detach": {"vm": "web", "disk": "data"},
        "attach_nvme": {"vm": "web", "address": "0000:01:00.0"},
        "detach_nvme": {"vm": "web", "address": "0000:01:00.0"},
        "balloon": {"vm": "web", "mib": 64},
        "list": {},
        "node": {},
        "enforce": {},
        "probe_kvm": {},
    }
    return operation_of({"operation": name, **fields.get(name, {"vm": "web"})})


def ordered(view: VmView, **fields: object) -> VmView:
    """A VM that was spawned with the spec it has."""
    assert view.spec is not None
    usual = {"order": view.spec.digest(), "owner": view.spec.owner}
    return view.model_copy(update=usual | fields)


@given(st.integers(0, 1 << 31), st.integers(1, 1 << 31))
def test_only_root_and_the_proxy_have_a_role(uid: int, proxy: int) -> None:
    """NP-08."""
    expected = Role.ROOT if uid == 0 else Role.PROXY if uid == proxy else None
    assert role_of(uid, proxy) == expected
    assert role_of(uid, None) == (Role.ROOT if uid == 0 else None)


@pytest.mark.parametrize("name", [*CHANGES, *QUESTIONS, *ROOT_ONLY])
def test_what_the_proxy_may_ask(name: str) -> None:
    """HOST-02, FLEET-21: root-only operations never, changes with a ticket."""
    body = operation(name)
    check_operation(Role.ROOT, body)
    assert not needs_ticket(Role.ROOT, body)
    assert needs_ticket(Role.PROXY, body) == (name in CHANGES)
    if name in ROOT_ONLY:
        with pytest.raises(Refusal) as refused:
            check_operation(Role.PROXY, body)
        assert refused.value.code == "forbidden"
    else:
        check_operation(Role.PROXY, body)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "needs the ticket"),
        ({"node": "laptop"}, "for node laptop"),
        ({"session": "f" * 32}, "another session"),
        ({}, "used before"),
    ],
)
def test_bad_tickets(change: dict[str, str] | None, reason: str) -> None:
    """HOST-02: none, another node's, another session's, and one that was used."""
    tickets = Tickets("server")
    good = Ticket(node="server", session=tickets.session, nonce=NONCE)
    tickets.spend(good)
    with pytest.raises(Refusal, match=reason) as refused:
        tickets.spend(None if change is None else good.model_copy(update=change))
    assert refused.value.code == "ticket_refused"


@given(st.integers(1, 20), st.integers(1, 60))
def test_a_ticket_is_never_good_twice(most: int, count: int) -> None:
    """HOST-02: also when there are more than one session remembers."""
    tickets = Tickets("server", most=most)
    spent: list[Ticket] = []
    for number in range(count):
        ticket = Ticket(node="server", session=tickets.session, nonce=f"{number:032x}")
        tickets.spend(ticket)
        spent.append(ticket)
    for ticket in spent:
        with pytest.raises(Refusal):
            tickets.spend(ticket)


def test_repeated_spawn_is_the_same_vm() -> None:
    """A repeated order finds the VM, whatever became of it since; another order does not."""
    order = make_spec(owner="tenant-1")
    grown = order.model_copy(update={"memory_mib": 1024, "state": "stopped"})
    node = make_node(ordered(make_view(grown), order=order.digest()))
    assert wanted(Spawn(vm=order), node) == grown
    for other in (make_spec(owner="tenant-2"), make_spec(owner="tenant-1", memory_mib=256)):
        with pytest.raises(Refusal) as refused:
            wanted(Spawn(vm=other), node)
        assert refused.value.code == "vm_exists"
    half_made = make_node(make_view(order, phase="creating"))
    assert wanted(Spawn(vm=order), half_made) == order
    assert wanted(Spawn(vm=order), make_node()) == order


def test_spawn_of_nothing_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        wanted(Spawn(vm=make_spec(state="absent")), make_node())
    assert refused.value.code == "request_invalid"


def test_changes_keep_all_but_what_they_change() -> None:
    """HOST-13."""
    spec = make_spec(label="x")
    node = make_node(make_view(spec))
    assert wanted(Stop(vm="web"), node) == spec.model_copy(update={"state": "stopped"})
    assert wanted(Start(vm="web"), node) == spec
    assert wanted(Destroy(vm="web"), node) == spec.model_copy(update={"state": "absent"})
    resized = wanted(Resize(vm="web", vcpus=4), node)
    assert (resized.vcpus, resized.memory_mib, resized.label) == (4, 512, "x")


def test_destroy_needs_no_sidecar_and_no_vm() -> None:
    for node in (make_node(), make_node(DAMAGED)):
        assert wanted(Destroy(vm="web"), node).state == "absent"


def test_a_removal_of_the_very_one_spares_every_other() -> None:
    """TEN-08: one made anew under the id, or of which nobody can say which it is."""
    there, other = make_node(make_view(make_spec())), UUID.replace("3b", "4c")
    assert wanted(Destroy(vm="web", uuid=UUID), there).state == "absent"
    assert wanted(Destroy(vm="web", uuid=other), make_node()).state == "absent"
    unnamed = make_node(DAMAGED.model_copy(update={"uuid": None}))
    for node, uuid in ((there, other), (unnamed, UUID)):
        with pytest.raises(Refusal) as refused:
            wanted(Destroy(vm="web", uuid=uuid), node)
        assert refused.value.code == "vm_replaced"


def test_unknown_and_unreadable_vms() -> None:
    with pytest.raises(Refusal) as unknown:
        wanted(Stop(vm="web"), make_node())
    assert unknown.value.code == "vm_unknown"
    damaged = make_node(DAMAGED)
    with pytest.raises(Refusal) as unreadable:
        wanted(Start(vm="web"), damaged)
    assert unreadable.value.code == "sidecar_damaged"


def test_attach_is_done_once() -> None:
    """DISK-01, the agent's part."""
    disks = [{"name": f"d{number}", "size_gib": 1} for number in range(15)]
    spec = make_spec(disks=disks)
    node = make_node(make_view(spec))
    new = {"name": "data", "size_gib": 2}
    attach = Attach.model_validate({"vm": "web", "disk": new})
    grown = wanted(attach, node)
    assert [disk.name for disk in grown.disks] == [*(f"d{n}" for n in range(15)), "data"]
    full = make_node(make_view(grown))
    assert wanted(attach, full) == grown
    with pytest.raises(Refusal) as other:
        wanted(Attach.model_validate({"vm": "web", "disk": new | {"size_gib": 3}}), full)
    assert other.value.code == "disk_exists"
    with pytest.raises(SpecInvalid):
        wanted(Attach.model_validate({"vm": "web", "disk": new | {"name": "more"}}), full)
