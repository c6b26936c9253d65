"""Disks, images, topology, cgroups, KVM verdicts, settings and the lock, on files of the test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ppn.host.cgroup import cpu_weight_support
from ppn.host.disk import DiskDamaged, create_disk, disk_info, disk_sizes, grow_disk
from ppn.host.images import ImageDamaged, read_image
from ppn.host.kvm import known_verdict, probe_kvm, run_guest
from ppn.host.lock import NodeBusy, node_lock
from ppn.host.model import Settings
from ppn.host.paths import Paths
from ppn.host.probe_guest import MARKER, initrd
from ppn.host.settings import read_settings
from ppn.host.topology import TopologyUnreadable, parse_cpu_list, read_topology
from ppn.run import CommandFailed, run
from ppn.settings import SettingsDamaged
from tests.host_root import write_hardware


def test_disk_is_made_grown_and_read_without_another_program(tmp_path: Path) -> None:
    base, path = tmp_path / "base.qcow2", tmp_path / "disk.qcow2"
    create_disk(base, 1, None)
    create_disk(path, 2, base)
    assert disk_sizes(path)[0] == disk_info(path).virtual_mib == 2048
    assert disk_info(path).base == base
    grow_disk(path, 3)
    assert disk_sizes(path)[0] == disk_info(path).virtual_mib == 3072
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["base.qcow2", "disk.qcow2"]


def test_failed_disk_leaves_no_file(tmp_path: Path) -> None:
    """HOST-11."""
    with pytest.raises(CommandFailed):
        create_disk(tmp_path / "disk.qcow2", 1, tmp_path / "no-such-base")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_disk_is_said(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"QFI")
    with pytest.raises(DiskDamaged):
        disk_sizes(path)


def write_image(folder: Path, **manifest: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"name": folder.name} | manifest))
    return folder


def test_images(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "debian", disk="disk.qcow2", cmdline="")
    create_disk(folder / "disk.qcow2", 2, None)
    found = read_image(folder)
    assert (found.image.disk_mib, found.image.direct_boot) == (2048, False)
    assert found.base == folder / "disk.qcow2"


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"disk": "disk.qcow2"},
        {"kernel": "kernel"},
        {"kernel": "../kernel"},
        {"name": "other", "kernel": "manifest.json"},
        {"kernel": 1},
    ],
)
def test_damaged_images_are_said(tmp_path: Path, manifest: dict[str, object]) -> None:
    with pytest.raises(ImageDamaged):
        read_image(write_image(tmp_path / "tiny", **manifest))


def test_image_without_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageDamaged, match=r"manifest\.json"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("sockets", "cores", "threads"), [(2, 8, 1), (4, 4, 1), (1, 4, 2), (2, 2, 2)]
)
def test_topology_of_many_machines(tmp_path: Path, sockets: int, cores: int, threads: int) -> None:
    """NUMA-05: cores are counted, not hardware threads."""
    write_hardware(tmp_path, sockets=sockets, cores=cores, threads=threads, memory_mib=4096)
    found = read_topology(tmp_path / "sys", tmp_path / "proc")
    assert found.cpus == sockets * cores * threads
    assert [socket.cores for socket in found.sockets] == [cores] * sockets
    assert found.largest_socket == cores
    assert len(found.numa_nodes) == sockets
    assert found.memory_mib == 4096


def test_this_machines_topology_agrees_with_lscpu() -> None:
    """NUMA-05: against another program, on the real kernel."""
    found = read_topology(Path("/sys"), Path("/proc"))
    lines = run(["lscpu", "-p=CPU,CORE,SOCKET"], timeout=30).stdout.splitlines()
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    assert found.cpus == len(rows)
    assert sum(socket.cores for socket in found.sockets) == len({row[1] for row in rows})
    assert len(found.sockets) == len({row[2] for row in rows})


def test_missing_hardware_description_is_said(tmp_path: Path) -> None:
    with pytest.raises(TopologyUnreadable):
        read_topology(tmp_path, tmp_path)


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-2,5,7-8\n") == (0, 1, 2, 5, 7, 8)
    assert parse_cpu_list("\n") == ()


def test_cgroup_support_is_found_with_its_reason(tmp_path: Path) -> None:
    """CPU-01: a clear reason where weights cannot take effect."""
    conf = tmp_path / "qemu.conf"
    assert "no cgroup v2" in cpu_weight_support(tmp_path, conf).reason
    controllers = tmp_path / "fs/cgroup/cgroup.controllers"
    controllers.parent.mkdir(parents=True)
    controllers.write_text("memory hugetlb\n")
    assert "memory hugetlb" in cpu_weight_support(tmp_path, conf).reason
    controllers.write_text("cpuset cpu io memory\n")
    assert cpu_weight_support(tmp_path, conf).enforced
    conf.write_text('#cgroup_controllers = [ "cpu" ]\ncgroup_controllers = [ ]\n')
    refused = cpu_weight_support(tmp_path, conf)
    assert not refused.enforced and str(conf) in refused.reason
    conf.write_text('cgroup_controllers = [\n  "cpu",\n  "memory" ]\n')
    assert cpu_weight_support(tmp_path, conf).enforced


def test_no_device_is_a_verdict_at_once_and_is_kept_for_this_boot(tmp_path: Path) -> None:
    """HOST-09: the first of three fixtures."""
    paths = Paths(tmp_path)
    assert not known_verdict(paths, "boot-1").probed
    found = probe_kvm(paths, "boot-1")
    assert not found.usable and "does not exist" in found.reason
    assert known_verdict(paths, "boot-1") == found
    assert not known_verdict(paths, "boot-2").probed


def test_device_without_a_kernel_to_run_proves_nothing(tmp_path: Path) -> None:
    """HOST-09: that a device exists is no evidence."""
    paths = Paths(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    found = probe_kvm(paths, "boot", environment={})
    assert not found.usable and "no kernel" in found.reason


def test_damaged_verdict_is_no_verdict(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.runtime.mkdir(parents=True)
    paths.kvm_verdict.write_text("{")
    assert not known_verdict(paths, "boot").probed


@pytest.mark.parametrize(
    ("script", "usable", "reason"),
    [
        (f"print({MARKER.decode()!r}, flush=True); import time; time.sleep(60)", True, "ran"),
        ("print('no such device')", False, "no such device"),
        ("print('KVM internal error. Suberror: 1', flush=True); input()", False, "Suberror"),
        ("import time; time.sleep(60)", False, "within"),
    ],
)
def test_listening_to_a_guest(script: str, usable: bool, reason: str) -> None:
    """HOST-09: every way a probe can end; the process is gone afterwards."""
    deadline = 0.2 if reason == "within" else 30.0
    found = run_guest([sys.executable, "-c", script], deadline)
    assert found[0] is usable and reason in found[1]


def test_missing_qemu_is_a_reason() -> None:
    assert run_guest(["/no/such/qemu"], 1)[1].startswith("cannot start")


def test_probe_archive_is_read_by_cpio(tmp_path: Path) -> None:
    """HOST-09: the archive against another program's reader."""
    archive = tmp_path / "initrd"
    archive.write_bytes(initrd(b"not a busybox"))
    with archive.open("rb") as file:
        listing = subprocess.run(
            ["busybox", "cpio", "-t"], stdin=file, capture_output=True, check=True, timeout=30
        )
    assert listing.stdout.decode().split() == [
        *("bin", "bin/busybox", "dev", "dev/console", "init"),
    ]


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    assert read_settings(path) == Settings()
    path.write_text('{"name": "server", "vcpu_buffer": 1}')
    assert read_settings(path).vcpu_buffer == 1
    for damage in ('{"name": "server", "vcpu_bufer": 1}', "{", '{"vcpu_buffer": -1}'):
        path.write_text(damage)
        with pytest.raises(SettingsDamaged):
            read_settings(path)


def test_lock_waits_and_then_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "run/host.lock"
    holder = (
        "import sys\nfrom pathlib import Path\nfrom ppn.host.lock import node_lock\n"
        "with node_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(NodeBusy, match=str(process.pid)), node_lock(path, timeout=0.1):
            pass
        process.kill()
        process.wait()
        with node_lock(path, timeout=10):
            pass
