"""The last decisions of a controller: kept, bounded, with each node's reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ppn.errors import PpnError, Refusal
from ppn.fleet.decisions import NODES_KEPT, VMS_KEPT, Decisions, why_not
from ppn.fleet.node import Reservation
from ppn.wire.problems import NoCapacity, NodeRefusal
from tests.unit.fleet.builders import demand, node
from tests.unit.fleet.controllers import FIRST, ORDER, Parts


def reservation(vm: str = "web", where: str = "a") -> Reservation:
    """A decision for a node."""
    return Reservation(1, vm, where, "0" * 32, demand(), "non-reserved", None)


def refused(name: str, code: str = "memory_exhausted") -> NodeRefusal:
    return NodeRefusal(node=name, code=code, message="no")


def test_every_node_has_its_reason() -> None:
    """CLI-03: those that refused, those that have no room, and those that were not the best."""
    views = {"a": node("a"), "b": node("b", images={}), "c": node("c"), "d": node("d")}
    decisions = Decisions()
    decisions.placed(reservation(), views, {"d": refused("d", "vm_busy")})
    found = decisions.last("web")
    assert found is not None and (found.node, found.tried) == ("a", ("d", "a"))
    assert [(one.node, one.code) for one in found.refused] == [
        ("b", "image_unknown"),
        ("c", "not_chosen"),
        ("d", "vm_busy"),
    ]


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (node(reserved=True), "reserved"),
        (node(kvm=False), "KVM"),
        (node(kvm=True, free_vcpus=8), "50 % used"),
    ],
)
def test_a_node_that_fits_says_why_another_was_better(view: object, text: str) -> None:
    found = why_not(demand(kvm=True), view)  # type: ignore[arg-type]
    assert found.code == "not_chosen" and text in found.message


def test_a_large_pool_is_cut_short_and_says_so() -> None:
    views = {f"n{at}": node(f"n{at}") for at in range(100)}
    decisions = Decisions()
    decisions.placed(reservation(where="n0"), views, {})
    found = decisions.last("web")
    assert found is not None
    assert (len(found.refused), found.left_out) == (NODES_KEPT, 100 - 1 - NODES_KEPT)


def test_the_oldest_are_forgotten() -> None:
    decisions = Decisions()
    for number in range(VMS_KEPT + 1):
        decisions.placed(reservation(f"vm-{number}"), {}, {})
    assert decisions.last("vm-0") is None
    assert decisions.last("vm-1") is not None and decisions.last(f"vm-{VMS_KEPT}") is not None


def test_a_failure_keeps_where_it_was_tried() -> None:
    decisions = Decisions()
    decisions.placed(reservation(), {"a": node("a")}, {})
    decisions.failed("web", demand(), PpnError("open", code="outcome_unknown"))
    found = decisions.last("web")
    assert found is not None and found.problem is not None
    assert (found.node, found.problem.code) == ("a", "outcome_unknown")
    decisions.failed("web", demand(), NoCapacity("none", [refused("a"), refused("b")]))
    found = decisions.last("web")
    assert found is not None and found.problem is not None
    assert (found.node, found.tried, len(found.refused)) == (None, ("a",), 2)
    assert (found.problem.code, found.problem.nodes) == ("no_capacity", ())


def test_what_the_controller_decides_is_kept(tmp_path: Path) -> None:
    """CLI-03: through the very code that places VMs; success and failure."""

    parts = Parts(tmp_path / "intents")

    async def decide() -> None:
        await parts.maker.make(FIRST, ORDER, parts.asked())
        made = parts.maker.decisions.last(FIRST)
        assert made is not None and made.problem is None
        assert (made.node, [one.node for one in made.refused]) == ("a", ["b"])
        big = ORDER.model_copy(update={"memory_mib": 1 << 20})
        with pytest.raises(Refusal):
            await parts.maker.make("vm-big", big, parts.asked())
        failed = parts.maker.decisions.last("vm-big")
        assert failed is not None and failed.node is None
        assert {one.code for one in failed.refused} == {"memory_exhausted"}

    with parts.journal:
        asyncio.run(decide())
