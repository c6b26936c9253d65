"""Which disks may be taken from which VMs."""

from __future__ import annotations

from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.host.detach import admit_detach
from ppn.host.forecast import after
from ppn.host.model import LibvirtStatus, NodeState, VmDisk
from tests.unit.host.builders import make_node, make_spec, make_view

DATA = {"name": "data", "size_gib": 1}
KEPT = VmDisk(name="old", size_mib=1024, detached=True)


def refused(node: NodeState, disk: str) -> str:
    with pytest.raises(Refusal) as refusal:
        admit_detach("web", disk, node)
    return refusal.value.code


def test_the_vm_shall_be_as_it_is_without_the_disk() -> None:
    """DISK-01."""
    spec = make_spec(disks=[DATA, {"name": "log", "size_gib": 1}], label="x")
    found = admit_detach("web", "data", make_node(make_view(spec)))
    assert found == make_spec(disks=[{"name": "log", "size_gib": 1}], label="x")


def test_a_kept_disk_may_be_named_to_discard_it() -> None:
    view = make_view(make_spec())
    node = make_node(view.model_copy(update={"disks": (*view.disks, KEPT)}))
    assert admit_detach("web", "old", node) == make_spec()


def test_a_declared_disk_whose_file_is_gone_may_be_given_up() -> None:
    view = make_view(make_spec(disks=[DATA]), disks=())
    assert admit_detach("web", "data", make_node(view)) == make_spec()


@pytest.mark.parametrize(
    ("change", "disk", "code"),
    [
        ({}, "root", "disk_root"),
        ({}, "none", "disk_unknown"),
        ({"phase": "creating"}, "data", "vm_creating"),
        ({"state": "unknown"}, "data", "qemu_silent"),
        ({"state": "stopped"}, "data", "vm_not_as_declared"),
        ({"sidecar": "damaged", "spec": None}, "data", "sidecar_damaged"),
    ],
)
def test_refusals(change: dict[str, Any], disk: str, code: str) -> None:
    """DISK-01: nothing is guessed about a VM of which too little is known."""
    view = make_view(make_spec(disks=[DATA])).model_copy(update=change)
    assert refused(make_node(view), disk) == code
    assert refused(make_node(), disk) == "vm_unknown"


def test_without_libvirt_nothing_is_known() -> None:
    """DISK-01."""
    view = make_view(make_spec(disks=[DATA])).model_copy(update={"state": "unknown"})
    node = make_node(view, libvirt=LibvirtStatus(ok=False))
    assert refused(node, "data") == "libvirt_unavailable"


def test_the_forecast_counts_what_is_kept() -> None:
    """DISK-05: a detached disk may still be attached again and grow."""
    node = make_node(make_view(make_spec(disks=[DATA])))
    less = after(node, make_spec())
    assert less.disk.promised_mib == node.disk.promised_mib
    view = less.vm("web")
    assert view is not None and view.disk("data") == VmDisk(
        name="data", size_mib=1024, detached=True
    )
