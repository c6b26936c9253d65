"""VMs from creation to removal, on a real libvirt with real guests."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ppn.host.disk import create_disk, disk_info
from ppn.host.sidecar import read_sidecar
from ppn.pool import keys, store
from ppn.pool.ledger import Grant
from tests.integration.host.node import Node, is_alive, wait_for


def grant(node: Node, tmp_path: Path, weight: int, minimum_mib: int, vm: str = "web") -> None:
    """Put a signed ledger on the node that gives a VM this much."""
    key_file = tmp_path / "operator.key"
    if not key_file.exists():
        keys.generate(key_file, keys.public_path(key_file))
    change = Grant(vm, weight, minimum_mib)
    store.extend(node.paths.ledger, keys.load_private(key_file), {vm: change}, datetime.now(UTC))
    public = keys.load_public(keys.public_path(key_file))
    node.paths.operator_key.parent.mkdir(parents=True, exist_ok=True)
    node.paths.operator_key.write_bytes(keys.public_pem(public))


def balloon(node: Node, mib: int) -> str:
    """What `ppn host balloon` shows."""
    return node.ppn("host", "balloon", "web", str(mib)).stdout


def test_created_vm_is_what_was_asked_for(node: Node) -> None:
    """HOST-04, HOST-05, HOST-10, HOST-14, BAL-04: as QEMU and the guest themselves tell it."""
    disks = [{"name": "data", "size_gib": 2}]
    done = node.apply(vcpus=4, memory_mib=512, disks=disks, owner="tenant-1", label="x <&> y")
    assert done["changed"]
    assert (done["vm"]["state"], done["vm"]["accelerator"]) == ("running", "tcg")
    assert is_alive(done["vm"]["pid"])
    assert len(node.monitor("web", "query-cpus-fast")) == 4
    assert node.monitor("web", "query-balloon")["actual"] == 512 << 20
    assert node.monitor("web", "query-memory-size-summary")["base-memory"] == 512 << 20
    assert node.monitor("web", "query-kvm")["enabled"] is False
    files = [block["inserted"]["file"] for block in node.monitor("web", "query-block")]
    folder = node.paths.vm("web")
    assert sorted(files) == sorted(map(str, (folder.root_disk, folder.disk("data"), folder.seed)))
    sidecar = read_sidecar(folder.sidecar)
    assert sidecar is not None and sidecar.phase == "ready"
    assert (sidecar.uuid, sidecar.spec.label) == (node.virsh("domuuid", "web").strip(), "x <&> y")
    assert node.wait_ready("web")["cpus"] == "4"
    beat = wait_for("a beat", lambda: node.beat("web"))
    assert beat["disks"] == "vda,vdb,vdc"
    assert 400 << 10 < int(beat["mem_total_kib"]) < 512 << 10
    again = node.apply(vcpus=4, memory_mib=512, disks=disks, owner="tenant-1", label="x <&> y")
    assert (again["changed"], again["vm"]["pid"]) == (False, done["vm"]["pid"])


def test_stop_resize_start_and_remove(node: Node) -> None:
    """HOST-13, HOST-15: modify, stop, start, destroy; afterwards nothing remains."""
    first = node.apply(disks=[{"name": "data", "size_gib": 1}])
    node.wait_ready("web")
    assert node.refused(vcpus=4, disks=[{"name": "data", "size_gib": 1}])["code"] == "vm_running"
    larger = {
        "vcpus": 4,
        "memory_mib": 384,
        "disk_gib": 2,
        "disks": [{"name": "data", "size_gib": 2}, {"name": "log", "size_gib": 1}],
    }
    stopped = node.apply(state="stopped", **larger)
    assert stopped["vm"]["state"] == "stopped" and not is_alive(first["vm"]["pid"])
    assert not node.apply(state="stopped", **larger)["changed"]
    assert disk_info(node.paths.vm("web").root_disk).virtual_mib == 2048
    started = node.apply(**larger)
    assert started["vm"]["uuid"] == first["vm"]["uuid"]
    assert node.wait_ready("web", boots=2)["cpus"] == "4"
    assert node.state().pool.vcpus_allocated == 4
    removed = node.apply(state="absent")
    assert removed["vm"] is None and not is_alive(started["vm"]["pid"])
    assert node.nothing_is_left()
    assert not node.apply(state="absent")["changed"]


def test_guest_obeys_its_power_button(node: Node) -> None:
    """HOST-13: a stop asks the guest first; QEMU says that the guest shut itself down."""
    node.apply()
    node.wait_ready("web")
    wait_for("the first beat", lambda: node.beat("web"))
    node.apply(state="stopped")
    assert "shut off (shutdown)" in node.virsh("domstate", "web", "--reason")


def test_disks_come_and_grow_while_the_guest_runs(node: Node) -> None:
    """HOST-13: the running QEMU is the same before and after."""
    first = node.apply()
    node.wait_ready("web")
    wait_for("the first beat", lambda: node.beat("web"))
    more = {"disk_gib": 3, "disks": [{"name": "data", "size_gib": 1}]}
    done = node.apply(**more)
    assert done["vm"]["pid"] == first["vm"]["pid"]
    wait_for("the new disk", lambda: node.beat("web").get("disks") == "vda,vdb,vdc")
    assert disk_info(node.paths.vm("web").root_disk).virtual_mib == 3072
    assert not node.apply(**more)["changed"]
    assert node.refused(disk_gib=2, disks=more["disks"])["code"] == "disk_shrinks"


def test_balloon_by_hand(node: Node, tmp_path: Path) -> None:
    """BAL-05, BAL-06, BAL-07, BAL-10, BAL-12: the guest follows, live, never below its minimum."""
    grant(node, tmp_path, weight=300, minimum_mib=256)
    first = node.apply(memory_mib=512)
    boot = node.wait_ready("web")["boot_id"]
    before = int(wait_for("a beat", lambda: node.beat("web"))["mem_total_kib"])
    assert node.state().pool.available_mib == 4096 - 256
    shown, after = balloon(node, 256), "after: 256 MiB of 512 MiB"
    assert "before: 512 MiB of 512 MiB" in shown
    # The command waits 15 s for the guest; asked again it goes on waiting.
    assert after in shown or wait_for("the guest", lambda: after in balloon(node, 256))
    assert node.monitor("web", "query-balloon")["actual"] == 256 << 20
    fallen = wait_for(
        "the guest's memory to fall",
        lambda: before - int(node.beat("web")["mem_total_kib"]) >= 256 << 10,
    )
    assert fallen
    low = node.ppn("host", "balloon", "web", "255", "--json", accept=(3,))
    error = json.loads(low.stderr)["error"]
    assert (error["code"], error["wanted"], error["free"]) == ("below_minimum", 255, 256)
    back = json.loads(node.ppn("host", "balloon", "web", "512", "--json").stdout)
    assert (back["before"]["current_mib"], back["after"]["current_mib"]) == (256, 512)
    wait_for("memory back", lambda: int(node.beat("web")["mem_total_kib"]) == before)
    assert node.beat("web")["boot_id"] == boot
    assert node.apply(memory_mib=512)["vm"]["pid"] == first["vm"]["pid"]


def test_enforcement_raises_memory_and_says_why_weights_are_not_in_force(
    node: Node, tmp_path: Path
) -> None:
    """BAL-08, CPU-01, CPU-03: a new minimum takes effect live; no weight fails silently."""
    grant(node, tmp_path, weight=300, minimum_mib=128)
    first = node.apply()
    node.wait_ready("web")
    balloon(node, 128)
    wait_for("the balloon", lambda: node.state().vms[0].memory.current_mib == 128)
    grant(node, tmp_path, weight=300, minimum_mib=192)
    done = json.loads(node.ppn("host", "enforce").stdout)
    assert done["changed"] and done["actions"] == ["memory_mib of vm web: 128 -> 192"]
    weight = done["vms"][0]["weight"]
    assert (weight["wanted"], weight["enforced"]) == (300, False)
    assert "cgroup" in weight["reason"]
    wait_for("the balloon", lambda: node.monitor("web", "query-balloon")["actual"] == 192 << 20)
    # libvirt hears of it a moment after QEMU knows.
    wait_for("libvirt", lambda: node.state().vms[0].memory.current_mib == 192)
    assert not json.loads(node.ppn("host", "enforce").stdout)["changed"]
    assert node.apply()["vm"]["pid"] == first["vm"]["pid"]


def test_tampered_ledger_stops_new_vms_and_enforcement(node: Node, tmp_path: Path) -> None:
    """CPU-03: the entry that broke is named, and nothing is done on its word."""
    grant(node, tmp_path, weight=300, minimum_mib=128)
    content = node.paths.ledger.read_bytes()
    node.paths.ledger.write_bytes(content.replace(b'"weight":300', b'"weight":900'))
    assert node.refused()["code"] == "ledger_unusable"
    assert node.nothing_is_left()
    failed = node.ppn("host", "enforce", "--json", accept=(1,))
    assert "entry 1" in json.loads(failed.stderr)["error"]["message"]
    state = node.state()
    assert not state.ledger.ok and state.ledger.error is not None


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"memory_mib": 8192}, "memory_exceeds_node"),
        ({"vcpus": 10}, "vcpus_exceed_socket"),
        ({"vcpus": 3}, "vcpus_odd"),
        ({"disk_gib": 60000}, "disk_exhausted"),
        ({"image": "none"}, "image_unknown"),
        ({"name": "Web"}, "spec_invalid"),
    ],
)
def test_refusals_name_the_constraint_and_leave_nothing(
    node: Node, spec: dict[str, object], code: str
) -> None:
    """HOST-11, NUMA-05, NUMA-06."""
    assert node.refused(**spec)["code"] == code
    assert node.nothing_is_left()


def test_another_disk_image_and_cpu_count(node: Node) -> None:
    """HOST-15: an image with a base disk; two VMs, and the pool's sums."""
    image = node.paths.image("based")
    tiny = node.paths.image("tiny")
    # It is there when QEMU died and the test runs again.
    shutil.rmtree(image, ignore_errors=True)
    image.mkdir()
    for file in ("kernel", "initrd"):
        (image / file).symlink_to(tiny.resolve() / file)
    create_disk(image / "disk.qcow2", 1, None)
    manifest = json.loads((tiny / "manifest.json").read_text())
    text = json.dumps(manifest | {"name": "based", "disk": "disk.qcow2"})
    (image / "manifest.json").write_text(text)
    node.apply(name="one", image="based", vcpus=2, disk_gib=2)
    assert disk_info(node.paths.vm("one").root_disk).base == image / "disk.qcow2"
    assert node.wait_ready("one")["cpus"] == "2"
    node.apply(name="one", image="based", vcpus=2, disk_gib=2, state="stopped")
    node.apply(name="two", vcpus=4)
    assert node.wait_ready("two")["cpus"] == "4"
    pool = node.state().pool
    assert (pool.vcpus_allocated, pool.available_mib) == (6, 4096 - 512)
