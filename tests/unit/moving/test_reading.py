"""A node is read while its agent takes in what comes."""

from __future__ import annotations

from pathlib import Path

from ppn.host.disk import MIB
from ppn.host.model import Enforcement
from ppn.host.paths import Paths
from ppn.host.sidecar import write_sidecar
from ppn.host.vm_state import NodeFacts, read_vm
from tests.unit.host.builders import make_node
from tests.unit.moving.test_policy import destination
from tests.unit.moving.world import VM


def test_a_file_that_takes_its_place_meanwhile_hides_nothing(tmp_path: Path) -> None:
    """MIG-01: one file that is gone once it is looked at kept the whole node from being read."""
    paths = Paths(tmp_path)
    files = paths.vm(VM)
    files.moving.mkdir(parents=True)
    write_sidecar(files.sidecar, destination("arriving"))
    (files.moving / "root.qcow2").write_bytes(b"x" * MIB)
    # A name that is listed and leads nowhere, as one that went between the two.
    (files.moving / "manifest.part").symlink_to("gone")
    unknown = Enforcement(enforced=False, reason="test")
    facts = NodeFacts(unknown, unknown, make_node().topology)
    read = read_vm(paths, VM, domain=None, answers=True, grant=None, node=facts)
    assert read.growth_mib == 1023
