"""Disks, CPUs and threads of this very machine, against what other programs say of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ppn.host.affinity import judge_pinning, vcpu_affinity
from ppn.host.hardware import read_blocks, read_cpu_model, read_cpu_usage
from ppn.host.model import CpuUsage, Enforcement, Pins
from ppn.host.topology import read_memory, read_topology
from ppn.run import run
from tests.unit.host.test_numa import machine

SYSFS, PROCFS = Path("/sys"), Path("/proc")
ENFORCED = Enforcement(enforced=True)


def test_this_machines_disks_agree_with_lsblk_and_df() -> None:
    """HLT-04: sizes in bytes, partitions, and what is mounted where."""
    found = {block.name: block for block in read_blocks(SYSFS, PROCFS)}
    listing = run(["lsblk", "-Jbn", "-o", "NAME,SIZE,TYPE,RO,ROTA"], timeout=30).stdout
    disks = {disk["name"]: disk for disk in json.loads(listing)["blockdevices"]}
    mib = 1024 * 1024
    assert {name for name, disk in disks.items() if disk["size"] >= mib} <= found.keys()
    for name, disk in disks.items():
        if name in found:
            block = found[name]
            assert block.size_mib == disk["size"] // mib
            assert (block.read_only, block.rotational) == (disk["ro"], disk["rota"])
            children = [part["name"] for part in disk.get("children", ()) if part["type"] == "part"]
            assert [part.name for part in block.parts] == children
    source = run(["df", "--output=source", "/"], timeout=30).stdout.split()[-1]
    uses = [(block.name, block.used_by) for block in found.values()]
    uses += [(part.name, part.used_by) for block in found.values() for part in block.parts]
    users = [name for name, used_by in uses if "/" in used_by]
    assert users == ([Path(source).name] if source.startswith("/dev/") else [])


def test_a_loop_disk_with_parts_and_swap(tmp_path: Path) -> None:
    """HLT-04: on files of the test, for here nobody may make such devices."""
    loop = tmp_path / "sys/block/loop0"
    for path, text in {
        "size": "4194304",
        "ro": "1",
        "removable": "0",
        "queue/rotational": "0",
        "dev": "7:0",
        "loop/backing_file": "/srv/a.img",
        "loop0p1/partition": "1",
        "loop0p1/size": "2097152",
        "loop0p1/dev": "259:0",
        "loop0p1/holders/dm-0/dev": "253:0",
    }.items():
        (loop / path).parent.mkdir(parents=True, exist_ok=True)
        (loop / path).write_text(f"{text}\n")
    (tmp_path / "sys/block/loop1").mkdir()
    (tmp_path / "sys/block/loop1/size").write_text("0\n")
    (tmp_path / "swaps").write_text("Filename Type Size\n/dev/loop0 partition 1 0 -2\n")
    (block,) = read_blocks(tmp_path / "sys", tmp_path)
    assert (block.size_mib, block.backing, block.read_only) == (2048, "/srv/a.img", True)
    assert block.used_by == ("swap",)
    assert [(part.name, part.size_mib, part.used_by) for part in block.parts] == [
        ("loop0p1", 1024, ("dm-0",))
    ]


def test_cpu_and_memory_are_this_machines() -> None:
    """HLT-02: as /proc and another program say."""
    topology = read_topology(SYSFS, PROCFS)
    assert topology.memory_mib == read_memory(PROCFS / "meminfo")["MemTotal"]
    assert topology.cpu_model == read_cpu_model(PROCFS)
    lscpu = json.loads(run(["lscpu", "-J"], timeout=30, env={"LC_ALL": "C"} | os.environ).stdout)
    fields = {row["field"]: row["data"] for row in lscpu["lscpu"]}
    assert fields.get("Model name:", topology.cpu_model) == topology.cpu_model
    assert all((node.free_mib or 0) <= node.memory_mib for node in topology.numa_nodes)
    before, after = read_cpu_usage(PROCFS), read_cpu_usage(PROCFS)
    assert before is not None and after is not None
    assert 0 < before.busy_seconds <= after.busy_seconds
    uptime = float((PROCFS / "uptime").read_text().split()[0])
    total = after.busy_seconds + after.idle_seconds
    assert 0.5 < total / (uptime * topology.cpus) < 1.5


def test_waiting_for_a_disk_is_idle(tmp_path: Path) -> None:
    """HLT-02: a guest's time is in the user's already."""
    (tmp_path / "stat").write_text("cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 1 1 1 1\n")
    (tmp_path / "loadavg").write_text("1.25 0.50 0.25 1/100 4711\n")
    per_second = os.sysconf("SC_CLK_TCK")
    assert read_cpu_usage(tmp_path) == CpuUsage(
        busy_seconds=171 / per_second, idle_seconds=4500 / per_second, load=1.25
    )


def test_figures_that_are_not_there_are_unknown(tmp_path: Path) -> None:
    assert read_cpu_usage(tmp_path) is None
    assert (read_cpu_model(tmp_path), read_blocks(tmp_path, tmp_path)) == ("", ())


def write_threads(proc: Path, threads: dict[int, tuple[str, str]]) -> None:
    for thread, (comm, allowed) in threads.items():
        task = proc / f"4711/task/{thread}"
        task.mkdir(parents=True)
        (task / "comm").write_text(f"{comm}\n")
        (task / "status").write_text(f"Name:\t{comm}\nCpus_allowed_list:\t{allowed}\nX:\t1\n")


def test_only_vcpu_threads_count_and_in_their_order(tmp_path: Path) -> None:
    """NUMA-03: ten vCPUs, KVM's and TCG's names; workers may run anywhere."""
    threads = {100 + vcpu: (f"CPU {vcpu}/KVM", f"{vcpu + 8}") for vcpu in (9, 0, 3, 1, 2)}
    write_threads(tmp_path, threads | {4711: ("qemu-system-x86", "0-15"), 99: ("worker", "0-15")})
    assert vcpu_affinity(4711, tmp_path) == ((8,), (9,), (10,), (11,), (17,))
    assert vcpu_affinity(4712, tmp_path) == ()
    # A thread that ends while it is looked at.
    (tmp_path / "4711/task/101/status").unlink()
    assert vcpu_affinity(4711, tmp_path) == ((8,), (10,), (11,), (17,))


def test_pinning_is_judged_with_its_reason() -> None:
    """NUMA-03: never silently."""
    pins, topology = Pins(cpus=(0, 1)), machine(2, 4)
    own = ((0,), (1,))

    def judge(
        wanted: Pins | None = pins,
        actual: tuple[tuple[int, ...], ...] = own,
        running: bool = True,
        support: Enforcement = ENFORCED,
    ) -> tuple[bool, str]:
        found = judge_pinning(wanted, actual, running=running, support=support, topology=topology)
        return found.pinned, found.reason

    assert judge() == (True, "")
    few = Enforcement(enforced=False, reason="few CPUs")
    assert judge(None, ((0, 1), (0, 1)), support=few) == (False, "few CPUs")
    assert "holds no CPUs" in judge(None)[1]
    assert judge(actual=(), running=False) == (False, "not running")
    assert "cannot be read" in judge(actual=())[1]
    for astray in (((0,), (0, 1)), ((1,), (0,)), ((0,),)):
        pinned, reason = judge(actual=astray)
        assert not pinned and "elsewhere" in reason
    assert judge(Pins(cpus=(3, 4)), ((3,), (4,))) == (
        True,
        "spread over sockets 0, 1: none had 2 CPUs free",
    )
