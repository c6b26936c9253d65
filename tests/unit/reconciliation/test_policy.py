"""What is found when the parts of the pool differ, and what is not when one is silent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.fleet.reconciliation.classes import CLASSES
from ppn.fleet.reconciliation.model import Gap, Key, Views
from ppn.fleet.reconciliation.policy import chained, confirmed, due, findings, outdated, read_twice
from ppn.fleet.reconciliation.watching import run_judges
from ppn.host.spec import Disk
from ppn.wire.fleet import OpenIntent, PlacedVm
from ppn.wire.heartbeat import VmReport
from tests.unit.fleet.builders import report
from tests.unit.reconciliation.builders import (
    JUST_NOW,
    LONG_AGO,
    NOW,
    OWN,
    POOL,
    WEB,
    agreeing,
    alert,
    by_controller,
    in_store,
    keys,
    node_report,
    on_node,
    record,
)

LOST = report("vm-lost", owner="acme")
STORE = POOL.stores[0].allocations
DISKS = report("vm-web", owner="acme", disks=(Disk(name="data", size_gib=5),))
RESERVED = record(LOST, state="reserved", since=LONG_AGO)
CASES: dict[str, tuple[Views, Key]] = {
    "ghost record": (in_store(POOL, 0, *STORE, record(LOST)), Key("ghost_record", "vm-lost")),
    "record lost": (in_store(POOL, 0), Key("vm_unrecorded", "vm-web", "server")),
    "another tenant's": (
        in_store(POOL, 0, record(WEB, tenant="rival")),
        Key("owner_wrong", "vm-web", "server"),
    ),
    "more memory": (
        in_store(POOL, 0, record(WEB, memory_mib=512)),
        Key("size_wrong", "vm-web", "server"),
    ),
    "one more disk": (
        in_store(agreeing({"server": (DISKS,)}), 0, record(WEB)),
        Key("size_wrong", "vm-web", "server"),
    ),
    "leaked": (in_store(POOL, 0, *STORE, RESERVED), Key("reservation_leaked", "vm-lost")),
    "leaked under a clock that was ahead": (
        in_store(POOL, 0, *STORE, record(LOST, state="reserved", since="2099-01-01T00:00:00Z")),
        Key("reservation_leaked", "vm-lost"),
    ),
    "leaked in a change": (
        in_store(POOL, 0, record(WEB, changing=True)),
        Key("reservation_leaked", "vm-web", "server"),
    ),
    "never removed": (
        in_store(POOL, 0, record(WEB, state="removing")),
        Key("removal_stuck", "vm-web", "server"),
    ),
    "two stores": (
        in_store(agreeing({"server": (WEB,)}, stores=2), 1, record(WEB, vcpus=4)),
        Key("records_differ", "vm-web"),
    ),
    "not on its node": (
        by_controller(
            POOL, 1, placed=(*POOL.controllers[1].placed, PlacedVm(node="laptop", vm=LOST))
        ),
        Key("registry_differs", "vm-lost", "laptop"),
    ),
    "unknown to one": (
        by_controller(POOL, 0, placed=POOL.controllers[0].placed[:1]),
        Key("registry_differs", "own", "server"),
    ),
    "heard by one": (
        by_controller(
            POOL, 0, nodes=(node_report("server"),), alerts=(alert("node_stale", "laptop"),)
        ),
        Key("node_unheard", "laptop", "laptop"),
    ),
    "older inventory": (
        by_controller(POOL, 0, nodes=(*POOL.controllers[0].nodes, node_report("old"))),
        Key("inventory_differs", "old", "old"),
    ),
    "stuck": (
        by_controller(POOL, 0, intents=(OpenIntent(id="vm-lost", node="laptop"),)),
        Key("intent_stuck", "vm-lost", "laptop"),
    ),
    "an agent's alert": (
        on_node(POOL, "laptop", alerts=(alert("qemu_unmanaged", "pid 7"),)),
        Key("qemu_unmanaged", "pid 7", "laptop"),
    ),
    "silent node": (
        replace(
            POOL,
            known=(*POOL.known, "attic"),
            gaps=(Gap("node", "attic", "no answer"),),
        ),
        Key("source_unreadable", "node attic", "attic"),
    ),
    "silent controller": (
        replace(POOL, gaps=(Gap("controller", "http://10.8.0.9:9203", "no answer"),)),
        Key("controller_silent", "http://10.8.0.9:9203"),
    ),
}


def test_parts_that_agree_have_no_finding() -> None:
    assert findings(POOL) == ()


@pytest.mark.parametrize("case", CASES)
def test_each_discrepancy_is_one_finding(case: str) -> None:
    """REC-02: with its class, its node and the next step."""
    views, key = CASES[case]
    (found,) = findings(views)
    assert found.key == key
    assert found.message and found.hint


def test_doubled_is_found_although_no_controller_says_so() -> None:
    """REC-02."""
    views = agreeing({"server": (WEB,), "laptop": (WEB,)})
    assert keys(views) == {Key("vm_doubled", "vm-web")}


def test_stale_everywhere_is_one_finding() -> None:
    """HLT-06: all controllers say it of a node, and it is one alert."""
    views = POOL
    for number in (0, 1):
        views = by_controller(
            views,
            number,
            nodes=(node_report("server"), node_report("laptop", stale=True)),
            alerts=(alert("node_stale", "laptop"),),
        )
    silent = replace(
        views,
        nodes=tuple(one for one in views.nodes if one.name == "server"),
        gaps=(Gap("node", "laptop", "unreachable"),),
    )
    (found,) = findings(silent)
    assert found.key == Key("node_stale", "laptop", "laptop") and found.told_by == "alert"


def test_a_silent_node_is_never_missing() -> None:
    """REC-02: what may be on a node that does not answer is no ghost, and no registry differs."""
    views = replace(
        in_store(POOL, 0, *STORE, record(LOST)),
        nodes=POOL.nodes[:1],
        gaps=(Gap("node", "laptop", "unreachable"),),
    )
    assert keys(views) == {Key("source_unreadable", "node laptop", "laptop")}


def test_what_may_be_on_a_node_we_were_not_told_of_is_no_ghost() -> None:
    """REC-02: a node new to the inventory is known to controllers before it is to us."""
    nodes = (*POOL.controllers[0].nodes, node_report("new"))
    views = by_controller(in_store(POOL, 0, *STORE, record(LOST)), 0, nodes=nodes)
    assert keys(views) == {Key("inventory_differs", "new", "new")}


def test_a_silent_tenant_proxy_leaves_vms_unjudged() -> None:
    views = replace(
        in_store(agreeing({"server": (WEB,)}, stores=2), 0),
        gaps=(Gap("tenant proxy", "https://10.8.0.3:9221", "unreachable"),),
    )
    other = replace(views, stores=views.stores[:1])
    found = Key("source_unreadable", "tenant proxy https://10.8.0.3:9221")
    assert keys(other) == {found}


def test_without_a_tenant_proxy_there_are_no_records_to_compare() -> None:
    assert findings(agreeing({"server": (WEB, OWN)}, stores=0)) == ()


def test_without_a_controller_no_node_is_at_fault() -> None:
    gaps = (Gap("node", "server", "none"), Gap("controller", "http://10.8.0.1:9203", "silent"))
    views = Views(at=NOW, known=("server",), gaps=gaps)
    assert keys(views) == {Key("controller_silent", "http://10.8.0.1:9203")}


def test_what_a_controller_does_not_hear_it_need_not_know() -> None:
    """REC-02: its registry is as old as its last word of the node, and that is said."""
    old = by_controller(
        POOL,
        0,
        placed=(),
        nodes=(node_report("server", stale=True), node_report("laptop")),
        alerts=(alert("node_stale", "server"),),
    )
    assert keys(old) == {Key("node_unheard", "server", "server")}
    fresh = by_controller(POOL, 0, placed=(), nodes=())
    assert keys(fresh) == set()


def test_a_vm_that_moves_is_not_doubled() -> None:
    views = agreeing({"server": (WEB,), "laptop": (WEB,)})
    assert keys(on_node(views, "laptop", going=frozenset({"vm-web"}))) == set()


def test_a_vm_with_an_open_intent_is_said_once() -> None:
    views = by_controller(in_store(POOL, 0), 0, intents=(OpenIntent(id="vm-web", node="server"),))
    assert keys(views) == {Key("intent_stuck", "vm-web", "server")}


def test_what_is_on_its_way_is_not_judged() -> None:
    new = report("vm-new", owner="acme", state="creating")
    assert keys(on_node(POOL, "laptop", vms=(new,))) == set()
    made = report("vm-new", owner="acme")
    going = on_node(POOL, "laptop", vms=(made,), going=frozenset({"vm-new"}))
    assert keys(going) == set()
    changing = record(WEB, memory_mib=512, changing=True, since=JUST_NOW)
    assert keys(in_store(POOL, 0, changing)) == set()
    fresh = record(LOST, state="reserved", since=JUST_NOW)
    assert keys(in_store(POOL, 0, *STORE, fresh)) == set()


def test_an_intent_its_node_is_at_is_not_stuck() -> None:
    views = by_controller(POOL, 0, intents=(OpenIntent(id="vm-new", node="laptop"),))
    assert keys(on_node(views, "laptop", going=frozenset({"vm-new"}))) == set()


def test_a_vm_between_two_nodes_is_not_judged() -> None:
    """MIG-01: it is doubled on neither, and who moves it has an intent meanwhile."""
    views = by_controller(POOL, 0, intents=(OpenIntent(id="vm-web", node="laptop"),))
    leaving = WEB.model_copy(update={"state": "moving"})
    coming = WEB.model_copy(update={"state": "arriving"})
    views = on_node(on_node(views, "server", vms=(leaving, OWN)), "laptop", vms=(coming,))
    assert keys(views) == set()


def test_a_vm_without_a_sidecar_is_said_once() -> None:
    """Its size is not known then, so that nothing can be said of it."""
    blank = WEB.model_copy(update={"vcpus": 0, "disk_gib": 0})
    views = on_node(POOL, "server", vms=(blank, OWN), alerts=(alert("sidecar_missing", "vm-web"),))
    assert keys(views) == {Key("sidecar_missing", "vm-web", "server")}
    nobody = blank.model_copy(update={"owner": "unknown"})
    views = agreeing({"server": (nobody,)})
    assert keys(in_store(views, 0)) == set()
    assert keys(in_store(views, 0, record(WEB))) == set()


def test_what_an_agent_says_itself_is_left_to_the_watch() -> None:
    """REC-03: two ways of seeing one thing are one alert."""
    twice = agreeing({"server": (WEB,), "laptop": (WEB,)})
    (found,) = findings(by_controller(twice, 0, alerts=(alert("vm_doubled", "vm-web"),)))
    assert found.told_by == "alert"
    (found,) = findings(twice)
    assert found.told_by == "comparison"


def test_only_what_a_second_look_shows_too_is_confirmed() -> None:
    ghost, leaked = (findings(CASES[name][0]) for name in ("ghost record", "leaked"))
    assert confirmed(ghost, ghost) == ghost
    assert confirmed(ghost, leaked) == confirmed(ghost, ()) == confirmed((), ghost) == ()


def test_what_only_a_second_look_could_read_is_not_judged() -> None:
    """REC-02: a ghost stands, though the first look lacked a node and could not see it."""
    second = in_store(POOL, 0, *STORE, record(LOST))
    gap = Gap("node", "laptop", "unreachable")
    first = replace(second, nodes=POOL.nodes[:1], gaps=(gap,))
    assert confirmed(findings(first), findings(second)) == ()
    views = read_twice(first, second)
    assert [one.name for one in views.nodes] == ["server"] and views.gaps == (gap,)
    assert not run_judges(Key("ghost_record", "vm-lost"), views)
    assert not run_judges(Key("owner_wrong", "vm-web", "laptop"), views)
    assert run_judges(Key("owner_wrong", "vm-web", "server"), views)
    assert read_twice(second, second) == second and read_twice(first, first) == first


VMS = st.builds(
    report,
    st.sampled_from([f"vm-{letter}" for letter in "abcdefgh"]),
    owner=st.sampled_from(["acme", "rival", "operator"]),
    vcpus=st.integers(0, 8),
    memory_mib=st.integers(64, 4096),
    disk_gib=st.integers(1, 64),
)


@st.composite
def pools(draw: st.DrawFn) -> Views:
    """Pools whose parts agree, of any size."""
    names = draw(st.lists(st.sampled_from("nodes"), unique=True, max_size=5))
    vms = draw(st.lists(VMS, unique_by=lambda vm: vm.id, max_size=8))
    held: dict[str, tuple[VmReport, ...]] = {name: () for name in names}
    for vm in vms if names else ():
        held[draw(st.sampled_from(names))] += (vm,)
    return agreeing(held, draw(st.integers(1, 3)), draw(st.integers(0, 2)))


@given(pools())
def test_no_finding_when_the_views_agree(views: Views) -> None:
    """REC-02: for any pool."""
    assert findings(views) == ()


@given(pools(), st.data())
def test_a_finding_for_each_thing_that_is_taken_away(views: Views, data: st.DataObject) -> None:
    """REC-02: nothing that one part alone knows stays unsaid."""
    held = [(node.name, vm) for node in views.nodes for vm in node.vms]
    if not held:
        return
    name, vm = data.draw(st.sampled_from(held))
    part = data.draw(st.sampled_from(["node", "controller", *(["store"] if views.stores else [])]))
    if part == "node":
        left = tuple(one for node, one in held if node == name and one != vm)
        views = on_node(views, name, vms=left)
        wanted = {Key("registry_differs", vm.id, name)}
        if views.stores and vm.owner != "operator":
            wanted |= {Key("ghost_record", vm.id)}
    elif part == "controller":
        placed = tuple(one for one in views.controllers[0].placed if one.vm != vm)
        views = by_controller(views, 0, placed=placed)
        wanted = {Key("registry_differs", vm.id, name)}
    else:
        for number, store in enumerate(views.stores):
            views = in_store(views, number, *(o for o in store.allocations if o.vm != vm.id))
        wanted = {Key("vm_unrecorded", vm.id, name)} if vm.owner != "operator" else set()
    assert keys(views) == wanted


def test_a_run_is_due_once_a_day_and_made_up_for() -> None:
    """REC-01: asked every hour by a fake clock, with an outage of three days."""
    moment = datetime(2026, 11, 1, 0, 7, tzinfo=UTC)
    off = (datetime(2026, 11, 5, 20, tzinfo=UTC), datetime(2026, 11, 8, 15, tzinfo=UTC))
    runs: list[datetime] = []
    while moment < datetime(2026, 11, 12, tzinfo=UTC):
        if not off[0] < moment < off[1] and due(runs, moment):
            runs.append(moment)
        moment += timedelta(hours=1)
    assert [run.day for run in runs] == [1, 2, 3, 4, 5, 8, 9, 10, 11]
    # The first hour after the outage, and midnight again from then on.
    assert [run.hour for run in runs] == [0, 0, 0, 0, 0, 15, 0, 0, 0]


def test_a_run_on_demand_counts_and_a_failed_one_does_not() -> None:
    """REC-01."""
    noon = datetime(2026, 11, 2, 12, tzinfo=UTC)
    assert due((), noon)
    assert not due((noon,), noon + timedelta(hours=11))
    assert due((noon,), noon + timedelta(hours=12))
    assert due((noon + timedelta(days=3650),), noon)


def test_reports_are_kept_for_the_stated_time() -> None:
    """REC-04."""
    made = [NOW - timedelta(days=days) for days in (500, 401, 399, 1)]
    assert outdated(made, NOW, 400) == 2
    assert outdated(made[:1], NOW, 400) == 0
    # A clock that was ahead keeps nothing for longer, nor does one that was behind for less long.
    ahead, behind = NOW + timedelta(days=9999), NOW - timedelta(days=9999)
    assert outdated([ahead, *made], NOW, 400) == 3
    assert outdated([*made[:3], behind, made[3]], NOW, 400) == 2


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_reports_are_in_the_order_they_were_written(names: list[int], missing: set[int]) -> None:
    """REC-04: whatever they are called, and whichever are not there."""
    links = {
        f"{names[at]}": (f"digest {at}", f"digest {at - 1}" if at else "")
        for at in range(6)
        if at not in missing
    }
    written = [f"{names[at]}" for at in range(6) if at not in missing]
    found = chained(links)
    assert sorted(found) == sorted(links)
    if missing <= {0}:
        assert list(found) == written
    for before, after in pairwise(written):
        if links[after][1] == links[before][0]:
            assert found.index(after) == found.index(before) + 1


def test_a_report_that_is_there_twice_is_said_twice() -> None:
    links = {"a": ("1", ""), "b": ("2", "1"), "copy": ("1", "")}
    assert sorted(chained(links)) == ["a", "b", "copy"]


def test_codes_are_stable_and_differ() -> None:
    assert len({one.code for one in CLASSES}) == len(CLASSES)
    assert all(one.meaning and one.hint for one in CLASSES)
