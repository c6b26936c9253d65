"""What a node does with its sidecar in a move, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.host.agent.alerts import Look, alerts
from ppn.host.agent.recovery import tasks
from ppn.host.agent.report import vm_report
from ppn.host.disk import MIB
from ppn.host.model import Image, Kvm, LedgerGrant, NodeState, Phase, VmDisk, VmView
from ppn.host.moving import policy
from ppn.host.moving.incoming import check_room
from ppn.host.policy import refusals
from ppn.host.sidecar import Move, Sidecar
from ppn.host.spec import VmSpec
from ppn.wire.moving import Offer, OfferedGrant
from tests.unit.host.builders import UUID, make_node, make_spec, make_view
from tests.unit.moving.world import CREATED, MOVE, SPEC, VM

OTHER = "b" * 32
GRANT = LedgerGrant(vm=VM, weight=50, minimum_mib=256)
AWAY: tuple[Phase, ...] = ("moving", "moved", "arriving")
Change = Callable[[Sidecar], object]


def sidecar(phase: Phase = "ready", move: Move | None = None, **fields: Any) -> Sidecar:
    """A VM's sidecar in a phase."""
    usual: dict[str, Any] = {"uuid": UUID, "created": CREATED, "spec": SPEC}
    return Sidecar(**{**usual, "phase": phase, "move": move, **fields})


def source(phase: Phase, move: str = MOVE) -> Sidecar:
    """A VM's sidecar where it comes from."""
    return sidecar(phase, Move(id=move, side="source", peer="b"))


def destination(phase: Phase, *, verified: bool = False) -> Sidecar:
    """A VM's sidecar where it goes to."""
    return sidecar(phase, Move(id=MOVE, side="destination", peer="a", verified=verified))


def code(change: Callable[[], object]) -> str:
    """The code of a refusal."""
    with pytest.raises(Refusal) as caught:
        change()
    return caught.value.code


@pytest.mark.parametrize(
    ("before", "change", "wanted"),
    [
        (sidecar(), lambda one: policy.departing(one, MOVE, "b"), "moving"),
        (source("moving"), lambda one: policy.departing(one, MOVE, "b"), "moving"),
        (source("moved"), lambda one: policy.departing(one, MOVE, "b"), "moved"),
        (source("ready"), lambda one: policy.departing(one, MOVE, "b"), "move_ended"),
        (source("ready", OTHER), lambda one: policy.departing(one, MOVE, "b"), "moving"),
        (source("moving", OTHER), lambda one: policy.departing(one, MOVE, "b"), "vm_moving"),
        (destination("arriving"), lambda one: policy.departing(one, OTHER, "c"), "vm_moving"),
        (source("moving"), lambda one: policy.called_back(one, MOVE), "ready"),
        (source("ready"), lambda one: policy.called_back(one, MOVE), "ready"),
        (sidecar(), lambda one: policy.called_back(one, MOVE), "ready"),
        (source("moved"), lambda one: policy.called_back(one, MOVE), "move_committed"),
        (source("moving", OTHER), lambda one: policy.called_back(one, MOVE), "vm_moving"),
        (destination("arriving"), lambda one: policy.called_back(one, MOVE), "vm_moving"),
        (source("moving"), lambda one: policy.committed(one, MOVE), "moved"),
        (source("moved"), lambda one: policy.committed(one, MOVE), "moved"),
        (source("ready"), lambda one: policy.committed(one, MOVE), "move_unknown"),
        (source("moving", OTHER), lambda one: policy.committed(one, MOVE), "move_unknown"),
        (destination("arriving"), lambda one: policy.committed(one, MOVE), "move_unknown"),
        (source("moved"), lambda one: policy.reclaimed(one, MOVE), "ready"),
        (source("ready"), lambda one: policy.reclaimed(one, MOVE), "ready"),
        (source("moving"), lambda one: policy.reclaimed(one, MOVE), "move_unknown"),
        (source("moved", OTHER), lambda one: policy.reclaimed(one, MOVE), "move_unknown"),
        (sidecar(), lambda one: policy.reclaimed(one, MOVE), "move_unknown"),
        (destination("ready"), lambda one: policy.reclaimed(one, MOVE), "move_unknown"),
        (
            destination("arriving", verified=True),
            lambda one: policy.reclaimed(one, MOVE),
            "move_unknown",
        ),
        (source("moving"), lambda one: policy.check_release(one, MOVE), "move_unknown"),
        (source("ready"), lambda one: policy.check_release(one, MOVE), "move_unknown"),
        (source("moved", OTHER), lambda one: policy.check_release(one, MOVE), "move_unknown"),
        (destination("ready"), lambda one: policy.check_drop(one, MOVE), "move_unknown"),
        (source("moving"), lambda one: policy.check_drop(one, MOVE), "move_unknown"),
        (destination("arriving"), lambda one: policy.verified(one, MOVE), "arriving"),
        (destination("arriving"), lambda one: policy.verified(one, OTHER), "move_unknown"),
        (
            destination("arriving"),
            lambda one: policy.settled(one, MOVE, source("moving")),
            "copy_unverified",
        ),
        (
            destination("arriving", verified=True),
            lambda one: policy.settled(one, OTHER, source("moving")),
            "move_unknown",
        ),
        (
            destination("arriving", verified=True),
            lambda one: policy.settled(one, MOVE, source("moving")),
            "ready",
        ),
    ],
)
def test_a_step_is_taken_or_refused(before: Sidecar, change: Change, wanted: str) -> None:
    """MIG-01: `back` and `commit` exclude each other, and what ended never begins again."""
    try:
        after = change(before)
    except Refusal as refusal:
        assert refusal.code == wanted
        return
    assert isinstance(after, Sidecar) and after.phase == wanted


def test_what_ended_is_remembered() -> None:
    """MIG-01: an order that is late does not stop a VM that stays."""
    kept = policy.called_back(sidecar(), MOVE)
    assert code(lambda: policy.departing(kept, MOVE, "b")) == "move_ended"
    assert policy.departing(kept, OTHER, "b").phase == "moving"


def test_a_settled_vm_is_who_it_was_where_it_is() -> None:
    """MIG-01, MIG-03: identity, order and description are the source's, the place its own."""
    sent = source("moving").model_copy(update={"order": "o", "drives": ()})
    own = policy.settled(destination("arriving", verified=True), MOVE, sent)
    assert (own.uuid, own.created, own.order) == (sent.uuid, sent.created, "o")
    assert own.spec == sent.spec.model_copy(update={"address": None})
    assert own.lease is None and own.pins is None
    assert policy.settled(own, MOVE, sent) == own
    assert policy.can_run(own) and policy.stage_of(own) == "settled"


@pytest.mark.parametrize(
    "fields",
    [
        {"spec": make_spec(name=VM, memory_mib=1024)},
        {"spec": make_spec(name=VM, owner="other")},
        {"spec": make_spec(name=VM, ports=[{"guest": 80}])},
        {"uuid": UUID.replace("3b", "4c")},
    ],
)
def test_what_was_not_offered_is_not_taken(fields: dict[str, Any]) -> None:
    """MIG-02: room was kept for another VM than came."""
    came = sidecar("moving", **fields)
    kept = destination("arriving", verified=True)
    assert code(lambda: policy.settled(kept, MOVE, came)) == "offer_differs"


@pytest.mark.parametrize("phase", AWAY)
@pytest.mark.parametrize("state", ["running", "stopped", "absent"])
def test_nothing_is_done_to_a_vm_between_two_nodes(phase: Phase, state: str) -> None:
    """MIG-01: neither by an agent nor by root, and not by a boot either; no alert is raised."""
    view = make_view(SPEC, phase=phase, state="missing", disks=(), digest="", seed=False)
    node = make_node(view)
    wanted = make_spec(name=VM, state=state, address=SPEC.address)
    assert next(one.code for one in refusals(wanted, node)) == "vm_moving"
    assert tasks(node, rebooted=True, unfinished={VM: "destroy"}) == ()
    assert alerts(Look(node), None, ()) == ()
    assert vm_report(view).state == ("arriving" if phase == "arriving" else "moving")


def vm_and_node(**fields: Any) -> tuple[VmView, NodeState]:
    """A VM that may leave, and its node."""
    view = make_view(SPEC).model_copy(update=fields)
    return view, make_node(view)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"phase": "creating"}, "vm_creating"),
        ({"phase": "moved"}, "vm_moving"),
        ({"drives": ("0000:01:00.0",)}, "drives_attached"),
        ({"sidecar": "damaged", "spec": None}, "sidecar_damaged"),
        ({"name": "web"}, "vm_declared"),
        ({"name": "vm-0000000000000000"}, "vm_declared"),
        ({"state": "unknown"}, "qemu_silent"),
    ],
)
def test_what_cannot_leave_its_node(fields: dict[str, Any], wanted: str) -> None:
    """MIG-01: refused before anything is done."""
    view, node = vm_and_node(**fields)
    assert next(policy.departure_refusals(view, node)).code == wanted


def offer(**fields: Any) -> Offer:
    """What the usual VM needs."""
    view, node = vm_and_node()
    return policy.offer_of(view, node).model_copy(update=fields)


def wide(**fields: Any) -> NodeState:
    """A node that can take the usual VM."""
    return make_node(**fields)


@pytest.mark.parametrize(
    ("node", "given", "wanted"),
    [
        (wide(), {}, None),
        (make_node(make_view(SPEC)), {}, "vm_exists"),
        (wide(cpus=1), {}, "vcpus_exceed_socket"),
        (make_node(make_view(make_spec(vcpus=8))), {}, "vcpus_exhausted"),
        (wide(free_mib=100), {}, "memory_not_free"),
        (wide(free_mib=100), {"running": False}, None),
        (wide(free_disk_mib=100), {}, "disk_exhausted"),
        (wide(free_disk_mib=9000), {"kept_mib": 9 * 1024}, "disk_exhausted"),
        (wide(images=()), {}, "image_unknown"),
        (wide(images=(Image(name="tiny", digest="1", direct_boot=True),)), {}, "image_differs"),
        (wide(images=(Image(name="tiny", digest="1"),)), {}, None),
        (wide(), {"accelerator": "kvm"}, "kvm_missing"),
        (wide(kvm=Kvm(usable=True, reason="ran")), {"accelerator": "kvm"}, None),
        (wide(), {"grant": OfferedGrant(weight=50, minimum_mib=256)}, "ledger_differs"),
        (wide(grants=(GRANT,)), {}, "ledger_differs"),
        (wide(grants=(GRANT,)), {"grant": OfferedGrant(weight=50, minimum_mib=256)}, None),
    ],
)
def test_what_a_destination_refuses(
    node: NodeState, given: dict[str, Any], wanted: str | None
) -> None:
    """MIG-02: with the constraint that binds, before the VM is stopped."""
    found = [one.code for one in policy.arrival_refusals(VM, offer(**given), node)]
    assert found[:1] == ([wanted] if wanted else []), found


def test_the_offer_says_no_more_than_room_depends_on() -> None:
    """INV-04: what an owner gave the guest goes sealed, past the controller."""
    spec: VmSpec = make_spec(name=VM, user_data={"secret": "x"}, ssh_keys=["ssh-ed25519 AAAA me"])
    view = make_view(spec)
    assert "secret" not in policy.offer_of(view, make_node(view)).model_dump_json()
    assert policy.arriving_spec(VM, policy.offer_of(view, make_node(view))).user_data is None


def test_disks_that_were_kept_are_a_part_of_the_offer() -> None:
    """MIG-02: they go with the VM, so room for them is asked for before it is stopped."""
    view = make_view(SPEC)
    kept = VmDisk(name="kept", size_mib=9000, detached=True)
    view = view.model_copy(update={"disks": (*view.disks, kept)})
    assert policy.offer_of(view, make_node(view)).kept_mib == 9000


@pytest.mark.parametrize(("mib", "fits"), [(1024, True), (1024 + 500, True), (1024 + 501, False)])
def test_copies_take_no_room_of_others(mib: int, fits: bool) -> None:
    """MIG-02: whatever the source says it sends; a full disk stops every guest of the node."""
    kept = destination("arriving")
    if fits:
        check_room(kept, mib * MIB, wide(free_disk_mib=500))
    else:
        there = wide(free_disk_mib=500)
        assert code(lambda: check_room(kept, mib * MIB, there)) == "disk_exhausted"
