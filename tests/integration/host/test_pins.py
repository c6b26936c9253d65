"""VMs on CPUs of their own: on a node that shows the CPUs this machine really has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ppn.host.backend import Backend
from ppn.host.domain import DomainInput, domain_xml
from ppn.host.images import read_image
from ppn.host.model import Pins, VmView
from ppn.host.numa import guest_cells
from ppn.host.sidecar import read_sidecar
from ppn.host.topology import read_topology
from ppn.run import run
from tests.host_root import write_hardware
from tests.integration.host import still
from tests.integration.host.node import Node, wait_for

CPUS = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(CPUS != [0, 1], reason="written for a machine with two CPUs")


@pytest.fixture
def two_cpus(node: Node) -> Iterator[Node]:
    """The node, with this machine's two CPUs in one NUMA node, and memory alone in another."""
    system = node.root / "sys/devices/system"
    lists = {system / "cpu/online": "0-1\n", system / "node/node0/cpulist": "0-1\n"}
    before = {path: path.read_text() for path in lists}
    far = system / "node/node1"
    for path, text in lists.items():
        path.write_text(text)
    far.mkdir()
    (far / "cpulist").write_text("\n")
    (far / "meminfo").write_text("Node 1 MemTotal: 1048576 kB\n")
    yield node
    node.clear()
    for path, text in before.items():
        path.write_text(text)
    for path in far.iterdir():
        path.unlink()
    far.rmdir()


def the_vm(node: Node, name: str = "web") -> VmView:
    vm = node.state().vm(name)
    assert vm is not None
    return vm


def affinity(pid: int) -> list[str]:
    """What taskset, another program, says of the vCPU threads, in their order."""
    threads: dict[str, str] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        comm = ""
        # QEMU's threads that read and write disks end when they have nothing to do.
        with suppress(FileNotFoundError, ProcessLookupError):
            comm = (task / "comm").read_text().strip()
        if comm.startswith("CPU "):
            threads[comm] = run(["taskset", "-cp", task.name], timeout=30).stdout.split()[-1]
    return [threads[comm] for comm in sorted(threads)]


def test_vcpus_are_where_the_plan_says_and_can_be_put_back_live(two_cpus: Node) -> None:
    """NUMA-01, NUMA-02, NUMA-03: threads, memory policy and sidecar agree; QEMU stays the same."""
    node = two_cpus
    done = node.apply(image=still.NAME)
    pid, pinning = done["vm"]["pid"], done["vm"]["pinning"]
    assert (pinning["pinned"], pinning["reason"]) == (True, "")
    assert pinning["wanted"] == {"cpus": [0, 1], "nodes": [0]}
    assert affinity(pid) == ["0", "1"]
    maps = Path(f"/proc/{pid}/numa_maps").read_text()
    assert "prefer:0" in maps or "prefer (many):0" in maps
    sidecar = read_sidecar(node.paths.vm("web").sidecar)
    assert sidecar is not None and sidecar.pins is not None and sidecar.pins.cpus == (0, 1)
    node.virsh("vcpupin", "web", "0", "1", "--live")
    astray = the_vm(node)
    assert not astray.pinning.pinned and "elsewhere" in astray.pinning.reason
    assert astray.pinning.actual == ((1,), (1,))
    enforced = json.loads(node.ppn("host", "enforce").stdout)
    assert enforced["actions"] == ["CPUs of vm web: 0, 1"]
    assert affinity(pid) == ["0", "1"] and the_vm(node).pid == pid
    assert not json.loads(node.ppn("host", "enforce").stdout)["changed"]


def test_a_vm_finds_its_cpus_again_after_a_stop(two_cpus: Node) -> None:
    """NUMA-03: a stopped VM's CPUs are kept for it; new ones are chosen when it is resized."""
    node = two_cpus
    node.paths.settings.parent.mkdir(parents=True, exist_ok=True)
    node.paths.settings.write_text('{"allow_odd_vcpus": true}')
    try:
        node.apply(name="one", vcpus=1)
        node.apply(name="two", vcpus=1)
        for name in ("one", "two"):
            # A guest that is up obeys its power button at once.
            node.wait_ready(name)
            wait_for("the first beat", partial(node.beat, name))
        node.apply(name="one", vcpus=1, state="stopped")
        assert the_vm(node, "one").pinning.reason == "not running"
        assert node.refused(name="more", vcpus=1)["code"] == "vcpus_exhausted"
        done = node.apply(name="one", vcpus=1)
        assert affinity(done["vm"]["pid"]) == ["0"]
        assert affinity(the_vm(node, "two").pid or 0) == ["1"]
        node.apply(name="one", state="absent")
        node.apply(name="two", vcpus=2, state="stopped")
        done = node.apply(name="two", vcpus=2)
        assert affinity(done["vm"]["pid"]) == ["0", "1"]
    finally:
        node.paths.settings.unlink()


def test_a_vm_without_cpus_of_its_own_gets_some_while_it_runs(node: Node, two_cpus: Node) -> None:
    """NUMA-03: for example one that was started by an older ppn."""
    online = node.root / "sys/devices/system/cpu/online"
    online.write_text("0-7\n")
    started = node.apply()["vm"]
    assert (started["pinning"]["pinned"], started["pinning"]["wanted"]) == (False, None)
    assert "may not run on its CPUs 2, 3" in started["pinning"]["reason"]
    online.write_text("0-1\n")
    assert "holds no CPUs" in the_vm(node).pinning.reason
    assert json.loads(node.ppn("host", "enforce").stdout)["changed"]
    after = the_vm(node)
    assert after.pinning.pinned and after.pid == started["pid"]
    assert affinity(started["pid"]) == ["0", "1"]
    wait_for("the first beat", lambda: node.beat("web"))
    node.apply(state="stopped")
    assert affinity(node.apply()["vm"]["pid"]) == ["0", "1"]


def test_a_guest_over_several_numa_nodes_sees_them(node: Node) -> None:
    """NUMA-01, NUMA-02: libvirt and QEMU take the cells, and the guest's kernel finds them."""
    node.apply(vcpus=4, memory_mib=384, state="stopped")
    files = node.paths.vm("web")
    sidecar = read_sidecar(files.sidecar)
    assert sidecar is not None
    image = read_image(node.paths.image("tiny"))
    # The plan is for two sockets; this machine has one NUMA node to stand behind both.
    pins = Pins(cpus=(0, 1, 2, 8), nodes=(0, 1))
    cells = guest_cells(pins, 384, read_topology(*two_sockets(node.root / "other")))
    given = DomainInput(
        uuid=sidecar.uuid,
        paths=files,
        boot=image.boot,
        accelerator="tcg",
        weight=None,
        cells=tuple(replace(cell, node=0) for cell in cells),
    )
    with Backend(node.uri) as backend:
        backend.define(domain_xml(sidecar.spec, given))
        backend.start("web")
    ready = node.wait_ready("web")
    seen = [part.split(":") for part in ready["nodes"].split("/")]
    assert (ready["cpus"], [cpus for cpus, _ in seen]) == ("4", ["0-2", "3"])
    assert all(128 << 10 < int(kib) <= 192 << 10 for _, kib in seen)
    backends = node.monitor("web", "query-memdev")
    assert {(one["size"], one["policy"]) for one in backends} == {(192 << 20, "preferred")}
    # libvirt has the figures that every other VM has.
    view = the_vm(node)
    assert (view.state, view.memory.maximum_mib) == ("running", 384)


def two_sockets(root: Path) -> tuple[Path, Path]:
    """What the kernel shows of a machine with two sockets of eight cores."""
    write_hardware(root, sockets=2, cores=8, memory_mib=4096)
    return root / "sys", root / "proc"
