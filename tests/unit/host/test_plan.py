"""Plans: empty when converged, convergent from anywhere, also when cut short."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ppn.host.model import VmDisk, VmView
from ppn.host.plan import (
    MIB_PER_GIB,
    Action,
    ActionKind,
    plan,
    plan_detach,
    wanted_disks,
)
from ppn.host.policy import refusals
from ppn.host.spec import VmSpec
from tests.unit.host.builders import make_node, make_spec, make_view

SPECS = st.builds(
    lambda state, vcpus, memory, disk, disks, label, hostname: make_spec(
        state=state,
        vcpus=vcpus,
        memory_mib=memory,
        disk_gib=disk,
        disks=[{"name": name, "size_gib": size} for name, size in disks.items()],
        label=label,
        hostname=hostname,
    ),
    st.sampled_from(["running", "stopped", "absent"]),
    st.sampled_from([2, 4]),
    st.sampled_from([256, 512]),
    st.integers(1, 3),
    st.dictionaries(st.sampled_from(["data", "log"]), st.integers(1, 3)),
    st.sampled_from(["", "a"]),
    st.sampled_from(["web", "www"]),
)


def do(view: VmView | None, action: Action, spec: VmSpec) -> VmView | None:
    """One step on a VM that exists only as a value."""
    kind = action.kind
    if kind is ActionKind.RESERVE:
        assert view is None
        return make_view(spec, state="missing", phase="creating", digest="", seed=False, disks=())
    if view is None:
        raise AssertionError(f"{action} on nothing")
    if kind is ActionKind.REMOVE_FILES:
        assert view.state == "missing"
        return None
    changes: dict[ActionKind, dict[str, object]] = {
        ActionKind.WRITE_SEED: {"seed": True},
        ActionKind.DEFINE: {
            "digest": spec.digest(),
            "state": "stopped" if view.state == "missing" else view.state,
        },
        ActionKind.START: {"state": "running"},
        ActionKind.STOP: {"state": "stopped"},
        ActionKind.UNDEFINE: {"state": "missing", "digest": ""},
        ActionKind.RECORD: {"spec": spec, "phase": "ready"},
    }
    if kind is ActionKind.DISCARD_DISK:
        assert (gone := view.disk(action.disk)) is not None and not gone.attached
        others = tuple(disk for disk in view.disks if disk.name != action.disk)
        return view.model_copy(update={"disks": others})
    if kind is ActionKind.DETACH_DISK:
        assert view.state == "running"
        disks = tuple(
            disk.model_copy(update={"attached": disk.attached and disk.name != action.disk})
            for disk in view.disks
        )
        return view.model_copy(update={"disks": disks})
    if action.disk:
        size = action.size_gib * MIB_PER_GIB
        present = view.disk(action.disk)
        if kind is ActionKind.ATTACH_DISK:
            assert present is not None and view.state == "running"
        disk = VmDisk(
            name=action.disk,
            size_mib=size,
            attached=kind is ActionKind.ATTACH_DISK or (present is not None and present.attached),
        )
        others = tuple(other for other in view.disks if other.name != action.disk)
        return view.model_copy(update={"disks": (*others, disk)})
    if kind is ActionKind.START:
        declared = {name for name, _ in wanted_disks(spec)}
        attached = tuple(
            disk.model_copy(update={"attached": disk.name in declared}) for disk in view.disks
        )
        return view.model_copy(update={"state": "running", "disks": attached})
    return view.model_copy(update=changes[kind])


def is_what_it_shall_be(view: VmView | None, spec: VmSpec) -> bool:
    if spec.state == "absent":
        return view is None
    return view is not None and (view.state, view.spec, view.phase) == (spec.state, spec, "ready")


@given(SPECS)
def test_nothing_to_do_for_a_converged_vm(spec: VmSpec) -> None:
    assert plan(spec, None if spec.state == "absent" else make_view(spec)) == ()


@given(st.lists(st.tuples(SPECS, st.integers(0, 12)), min_size=1, max_size=6))
def test_runs_cut_short_anywhere_converge_when_repeated(runs: list[tuple[VmSpec, int]]) -> None:
    """HOST-13: each run may be killed after any step; the next one still gets there."""
    view: VmView | None = None
    for spec, steps in runs:
        node = make_node(view) if view is not None else make_node()
        if list(refusals(spec, node)):
            continue
        for action in plan(spec, view)[:steps]:
            view = do(view, action, spec)
    last = make_spec(name="web") if view is None or view.spec is None else view.spec
    for action in plan(last, view):
        view = do(view, action, last)
    assert is_what_it_shall_be(view, last)
    assert plan(last, view) == ()


@given(SPECS, SPECS)
def test_an_admitted_change_converges_in_one_run(old: VmSpec, new: VmSpec) -> None:
    view = make_view(old) if old.state != "absent" else None
    node = make_node(view) if view is not None else make_node()
    if list(refusals(new, node)):
        return
    for action in plan(new, view):
        view = do(view, action, new)
    assert is_what_it_shall_be(view, new)
    assert plan(new, view) == ()


@given(st.sampled_from(["running", "stopped"]), st.booleans(), st.integers(0, 6), st.booleans())
def test_detaches_cut_short_anywhere_converge_when_repeated(
    state: str, discard: bool, steps: int, again: bool
) -> None:
    """DISK-01: repeated as it was, or undone by declaring the disk again."""
    disks = [{"name": "data", "size_gib": 1}, {"name": "log", "size_gib": 2}]
    whole, less = make_spec(state=state, disks=disks), make_spec(state=state, disks=disks[1:])
    view: VmView | None = make_view(whole)
    assert view is not None
    for action in plan_detach(less, view, "data", discard=discard)[:steps]:
        view = do(view, action, less)
    assert view is not None
    wanted = whole if again else less
    for action in plan(whole, view) if again else plan_detach(less, view, "data", discard=discard):
        view = do(view, action, wanted)
    assert is_what_it_shall_be(view, wanted) and plan(wanted, view) == ()
    assert view is not None
    data = view.disk("data")
    assert (data is None) == (discard and not again)
    assert data is None or data.attached == (again and state == "running")
    assert again or plan_detach(less, view, "data", discard=discard) == ()


def test_the_file_of_a_discarded_disk_goes_last() -> None:
    """DISK-01: while its record names the disk, the disk is there."""
    view = make_view(make_spec(disks=[{"name": "data", "size_gib": 2}]))
    assert [str(step) for step in plan_detach(make_spec(), view, "data", discard=True)] == [
        "detach disk data from vm web",
        "define vm web",
        "record the state of vm web",
        "discard disk data of vm web",
    ]


def test_creation_makes_the_vm_known_before_anything_else() -> None:
    kinds = [action.kind for action in plan(make_spec(), None)]
    assert kinds[0] is ActionKind.RESERVE
    assert kinds[-2:] == [ActionKind.START, ActionKind.RECORD]


def test_removal_takes_the_files_last() -> None:
    """HOST-13: while anything is left, the sidecar says so."""
    kinds = [action.kind for action in plan(make_spec(state="absent"), make_view(make_spec()))]
    assert kinds == [ActionKind.STOP, ActionKind.UNDEFINE, ActionKind.REMOVE_FILES]


def test_half_made_vm_of_another_image_is_made_anew() -> None:
    half = make_view(make_spec(image="old"), phase="creating", state="missing")
    kinds = [action.kind for action in plan(make_spec(), half)]
    assert kinds[:2] == [ActionKind.REMOVE_FILES, ActionKind.RESERVE]


def test_half_made_vm_with_larger_disks_is_made_anew() -> None:
    half = make_view(make_spec(disk_gib=4), phase="creating", state="missing")
    kinds = [action.kind for action in plan(make_spec(disk_gib=2), half)]
    assert kinds[:2] == [ActionKind.REMOVE_FILES, ActionKind.RESERVE]


def test_new_disk_of_a_running_vm_is_attached_live() -> None:
    spec = make_spec(disks=[{"name": "data", "size_gib": 2}])
    kinds = [str(action) for action in plan(spec, make_view(make_spec()))]
    assert kinds == [
        "create disk data of vm web (2 GiB)",
        "attach disk data to vm web",
        "define vm web",
        "record the state of vm web",
    ]


def test_actions_are_values() -> None:
    action = Action(ActionKind.GROW_DISK, "web", "root", 2)
    assert replace(action) == action
    assert str(action) == "grow disk root of vm web to 2 GiB"
