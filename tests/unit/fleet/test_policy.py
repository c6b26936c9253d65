"""Where a VM goes: the passes, the constraints with their numbers, the policies."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ppn.fleet.index import BLOCK, Index
from ppn.fleet.model import MARGIN_MIB, Demand, NodeView, demand_of
from ppn.fleet.policy import Choice, no_capacity, place, refusals
from ppn.host.spec import Disk
from ppn.wire.fleet import VmOrder
from tests.unit.fleet.builders import demand, index_of, node


def chosen(wanted: Demand, *nodes: NodeView) -> str | None:
    choice = place(wanted, index_of(*nodes))
    return choice.node.name if choice else None


def codes(wanted: Demand, view: NodeView) -> list[str]:
    return [refusal.code for refusal in refusals(wanted, view)]


@pytest.mark.parametrize(
    ("open_fits", "reserved_fits", "expected"),
    [
        (True, True, ("open", "non-reserved")),
        (True, False, ("open", "non-reserved")),
        (False, True, ("kept", "reserved")),
        (False, False, None),
    ],
)
def test_two_passes(open_fits: bool, reserved_fits: bool, expected: tuple[str, str] | None) -> None:
    """FLEET-03, FLEET-04: a reserved node only when no other fits."""
    index = index_of(
        node("open", free_vcpus=2 if open_fits else 1),
        node("kept", reserved=True, free_vcpus=16 if reserved_fits else 1),
    )
    choice = place(demand(), index)
    assert (choice and (choice.node.name, choice.passed)) == expected


LINES = [
    ("open-kvm", False, True),
    ("open-tcg", False, False),
    ("kept-kvm", True, True),
    ("kept-tcg", True, False),
]


@pytest.mark.parametrize("fitting", list(product([True, False], repeat=4)))
@pytest.mark.parametrize("wanted", [demand(kvm=True), demand(policy="kvm-first")])
def test_kvm_and_the_two_passes(fitting: tuple[bool, ...], wanted: Demand) -> None:
    """FLEET-09: the whole truth table; the first line that fits, whatever else is free."""
    nodes = [
        # The later a line, the emptier its node: only the order of the lines decides.
        node(name, reserved=reserved, kvm=kvm, free_vcpus=4 * (at + 1) if fits else 1)
        for at, ((name, reserved, kvm), fits) in enumerate(zip(LINES, fitting, strict=True))
    ]
    expected = next((line[0] for line, fits in zip(LINES, fitting, strict=True) if fits), None)
    assert chosen(wanted, *nodes) == expected


def test_kvm_goes_before_memory() -> None:
    """FLEET-09: the KVM node even with less memory; without KVM when no KVM node fits."""
    kvm, tcg = node("kvm", kvm=True, free_memory_mib=2048), node("tcg", free_memory_mib=32000)
    assert chosen(demand(kvm=True), kvm, tcg) == "kvm"
    assert chosen(demand(kvm=False), kvm, tcg) == "tcg"
    assert chosen(demand(kvm=True, memory_mib=4096), kvm, tcg) == "tcg"


BOUNDARIES = [
    ({"free_vcpus": 2}, "vcpus_exhausted", {"free_vcpus": 1}, (2, 1, "vCPU")),
    ({"largest_socket": 2}, "vcpus_exceed_socket", {"largest_socket": 1}, (2, 1, "vCPU")),
    ({"free_memory_mib": 1024}, "memory_exhausted", {"free_memory_mib": 1023}, (1024, 1023, "MiB")),
    ({"free_disk_mib": 10240}, "disk_exhausted", {"free_disk_mib": 10239}, (10240, 10239, "MiB")),
    ({"images": {"tiny": 10240}}, "disk_below_image", {"images": {"tiny": 10241}}, (10, 11, "GiB")),
    ({"addresses": 1}, "addresses_exhausted", {"addresses": 0}, (1, 0, "address")),
]


@pytest.mark.parametrize(("enough", "code", "short", "numbers"), BOUNDARIES)
def test_each_need_has_an_exact_boundary(
    enough: dict[str, Any], code: str, short: dict[str, Any], numbers: tuple[int, int, str]
) -> None:
    """FLEET-05, FLEET-14: free as wanted is accepted, one less is refused with the numbers."""
    assert chosen(demand(), node(**enough)) == "node"
    assert chosen(demand(), node(**short)) is None
    (refusal,) = refusals(demand(), node(**short))
    assert refusal.code == code
    assert (refusal.wanted, refusal.free, refusal.unit) == numbers


@pytest.mark.parametrize(
    ("wanted", "have", "code"),
    [
        (demand(image="other"), {}, "image_unknown"),
        (demand(vcpus=3), {}, "vcpus_odd"),
        (demand(network=True), {"addresses": None}, "network_missing"),
        (demand(affinity="db"), {}, "affinity_unmet"),
        (demand(affinity="db"), {"labels": frozenset({("other", "db")})}, "affinity_unmet"),
        (
            demand(anti_affinity="db"),
            {"labels": frozenset({("acme", "db")})},
            "anti_affinity_unmet",
        ),
    ],
)
def test_what_has_no_number(wanted: Demand, have: dict[str, Any], code: str) -> None:
    assert codes(wanted, node(**have)) == [code]
    assert chosen(wanted, node(**have)) is None


@pytest.mark.parametrize(
    ("wanted", "have"),
    [
        (demand(vcpus=3), {"allow_odd": True}),
        (demand(), {"addresses": None}),
        (demand(affinity="db"), {"labels": frozenset({("acme", "db")})}),
        (demand(anti_affinity="db"), {"labels": frozenset({("other", "db")})}),
    ],
)
def test_what_is_met(wanted: Demand, have: dict[str, Any]) -> None:
    assert chosen(wanted, node(**have)) == "node"


def test_refusal_names_each_node_and_what_bound_it() -> None:
    """FLEET-14: three nodes, each short of another thing, are refused with that reason."""
    short = [
        node("a", free_vcpus=1),
        node("b", free_memory_mib=1),
        node("c", free_disk_mib=1),
    ]
    refusal = no_capacity("vm-1", demand(), short)
    assert [(one.node, one.code, one.wanted, one.free) for one in refusal.nodes] == [
        ("a", "vcpus_exhausted", 2, 1),
        ("b", "memory_exhausted", 1024, 1),
        ("c", "disk_exhausted", 10240, 1),
    ]
    assert refusal.code == "no_capacity"


def test_policies_choose_as_documented() -> None:
    """FLEET-11: by the fullest resource; for `full` that is the disk, for `half` memory."""
    nodes = [
        node("empty"),
        node("half", free_memory_mib=16384 - MARGIN_MIB),
        node("full", free_disk_mib=node().disk_mib // 4),
        node("kvm", kvm=True, free_vcpus=2),
    ]
    assert chosen(demand(), *nodes) == "empty"
    assert chosen(demand(policy="pack"), *nodes[:3]) == "full"
    assert chosen(demand(policy="kvm-first"), *nodes) == "kvm"


def test_unknown_policy_breaks_the_contract() -> None:
    """FLEET-11."""
    with pytest.raises(ValidationError):
        VmOrder(owner="acme", image="tiny", vcpus=2, memory_mib=64, policy="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["spread", "pack", "kvm-first"])
def test_equal_nodes_go_by_name(policy: str) -> None:
    """FLEET-13: also with more nodes than a block of the index holds."""
    nodes = [node(f"n{number:04}") for number in range(5 * BLOCK)]
    assert chosen(demand(policy=policy), *reversed(nodes)) == "n0000"


def test_sixty_equal_vms_spread_over_six_equal_nodes() -> None:
    """FLEET-15: the busiest node has at most one VM more than the least busy."""
    index = index_of(*(node(f"n{number}", vcpus=64, free_vcpus=64) for number in range(6)))
    counts: Counter[str] = Counter()
    for _ in range(60):
        choice = debited(index, demand())
        assert choice is not None
        counts[choice.node.name] += 1
        assert max(counts.values()) - min(counts[name] for name in index.views()) <= 1
    assert sum(counts.values()) == 60


def debited(index: Index, wanted: Demand) -> Choice | None:
    choice = place(wanted, index)
    if choice is not None:
        view = choice.node
        index.put(
            view._replace(
                free_vcpus=view.free_vcpus - wanted.vcpus,
                free_memory_mib=view.free_memory_mib - wanted.memory_mib,
                free_disk_mib=view.free_disk_mib - wanted.disk_mib,
            )
        )
    return choice


def test_node_that_refused_is_not_chosen_again() -> None:
    """FLEET-10: after a node's refusal the next candidate is taken, and the reasons are kept."""
    first, second = node("a"), node("b")
    (reason,) = refusals(demand(), node("a", free_vcpus=0))
    choice = place(demand(), index_of(first, second), {"a": reason})
    assert choice is not None and choice.node.name == "b"
    assert no_capacity("vm-1", demand(), [first], {"a": reason}).nodes == (reason,)


def test_order_becomes_demand() -> None:
    """FLEET-14: data disks count, ports need a VM network."""
    order = VmOrder.model_validate(
        {
            "owner": "acme",
            "image": "tiny",
            "vcpus": 2,
            "memory_mib": 64,
            "disk_gib": 2,
            "disks": [Disk(name="data", size_gib=3)],
            "ports": [{"guest": 22}],
            "label": "web",
        }
    )
    wanted = demand_of(order)
    assert (wanted.root_gib, wanted.disk_mib, wanted.network) == (2, 5 * 1024, True)
    assert (wanted.kvm, wanted.label, wanted.policy) == (True, "web", "spread")


LABELS = st.frozensets(
    st.sampled_from([("acme", "db"), ("acme", "web"), ("other", "db")]), max_size=2
)
NODES = st.builds(
    node,
    st.integers(0, 400).map(lambda number: f"n{number}"),
    reserved=st.booleans(),
    kvm=st.booleans(),
    allow_odd=st.booleans(),
    largest_socket=st.sampled_from([1, 2, 4, 16]),
    free_vcpus=st.integers(-1, 16),
    free_memory_mib=st.integers(-2, 6).map(lambda steps: steps * 512),
    free_disk_mib=st.sampled_from([0, 10239, 10240, 10**6]),
    images=st.sampled_from([{"tiny": 1024}, {"tiny": 10241}, {"big": 0}, {"tiny": 0, "big": 0}]),
    labels=LABELS,
    addresses=st.sampled_from([None, 0, 1, 253]),
)
DEMANDS = st.builds(
    demand,
    image=st.sampled_from(["tiny", "tiny", "big", "none"]),
    vcpus=st.integers(1, 6),
    memory_mib=st.sampled_from([64, 512, 1024]),
    affinity=st.sampled_from(["", "", "db"]),
    anti_affinity=st.sampled_from(["", "", "web"]),
    kvm=st.booleans(),
    network=st.booleans(),
    policy=st.sampled_from(["spread", "pack", "kvm-first"]),
)


def by_brute_force(wanted: Demand, nodes: dict[str, NodeView]) -> str | None:
    """Looks at every node and scores it, with none of the code under test."""

    def fits(view: NodeView) -> bool:
        return (
            wanted.image in view.images
            and view.images[wanted.image] <= wanted.root_gib * 1024
            and wanted.vcpus <= min(view.largest_socket, view.free_vcpus)
            and (wanted.vcpus % 2 == 0 or view.allow_odd)
            and wanted.memory_mib <= view.free_memory_mib
            and wanted.disk_mib <= view.free_disk_mib
            and view.addresses != 0
            and not (wanted.network and view.addresses is None)
            and (not wanted.affinity or (wanted.owner, wanted.affinity) in view.labels)
            and (wanted.owner, wanted.anti_affinity) not in view.labels
        )

    def score(view: NodeView) -> tuple[bool, bool, int, str]:
        used = max(
            (whole - free) * 10**6 // whole
            for whole, free in (
                (view.vcpus, view.free_vcpus),
                (view.memory_mib, view.free_memory_mib + 512),
                (view.disk_mib, view.free_disk_mib),
            )
        )
        share = max(min(used, 10**6), 0)
        kvm = wanted.kvm or wanted.policy == "kvm-first"
        order = -share if wanted.policy == "pack" else share
        return (view.reserved, kvm and not view.kvm, order, view.name)

    return min((score(view) for view in nodes.values() if fits(view)), default=(0, 0, 0, None))[3]


@given(st.lists(NODES, max_size=60), st.lists(DEMANDS, min_size=1, max_size=8))
def test_index_decides_as_brute_force(nodes: list[NodeView], wanted: list[Demand]) -> None:
    """FLEET-13: many nodes, every policy, whatever came and went before."""
    index = Index()
    known: dict[str, NodeView] = {}
    for at, view in enumerate(nodes):
        if at % 5 == 4:
            gone = next(iter(known))
            index.drop(gone)
            del known[gone]
        index.put(view)
        known[view.name] = view
    for one in wanted:
        choice = place(one, index)
        assert (choice.node.name if choice else None) == by_brute_force(one, known)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(12))
def test_index_decides_as_brute_force_in_a_large_pool(seed: int) -> None:
    """FLEET-13: with blocks cut and joined, as nodes fill, empty, come and go."""
    random = Random(seed)
    index = Index()
    known: dict[str, NodeView] = {}
    names = [f"n{number:03}" for number in range(6 * BLOCK)]
    for step in range(12 * BLOCK):
        # A pool that first grows, then shrinks from the end of the order that the seed says.
        if step > 7 * BLOCK and known:
            end = min if seed % 3 else max
            name = end(known, key=lambda one: (known[one].share, one))
            index.drop(name)
            del known[name]
        else:
            name = random.choice(names)
            known[name] = some_node(name, random)
            index.put(known[name])
        if step % 16 == 0:
            wanted = some_demand(random)
            choice = place(wanted, index)
            assert (choice.node.name if choice else None) == by_brute_force(wanted, known)
    assert dict(index.views()) == known


def some_node(name: str, random: Random) -> NodeView:
    """Mostly too full in one way or another, so that blocks must be passed over rightly."""
    return node(
        name,
        reserved=random.random() < 0.1,
        kvm=random.random() < 0.2,
        allow_odd=random.random() < 0.05,
        largest_socket=random.choice([2, 4, 16]),
        free_vcpus=random.choice([0, 1, 2, 2, 4, 15]),
        free_memory_mib=random.choice([0, 256, 512, 30000]),
        free_disk_mib=random.choice([0, 10239, 10240, 10**6]),
        images=random.choice([{"tiny": 1024}, {"tiny": 0}, {"big": 0}]),
        addresses=random.choice([None, 0, 253]),
    )


def some_demand(random: Random) -> Demand:
    """A demand that few of those nodes can meet."""
    return demand(
        image=random.choice(["tiny", "big"]),
        vcpus=random.choice([1, 2, 4]),
        memory_mib=random.choice([64, 512, 1024]),
        kvm=random.random() < 0.5,
        network=random.random() < 0.3,
        policy=random.choice(["spread", "pack", "kvm-first"]),
    )
