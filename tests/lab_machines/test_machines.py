"""The same pool with a machine in it, whose kernel is its own: KVM, CPU weights, balloons for real.

The server is the machine; the others are containers, for each emulated machine more takes the
processors of the one that is judged. tests/iso has the laptop as a machine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lab.process import recorded
from tests.lab.pool import LabPool, eventually, inventory_with
from tests.lab.test_3_vms import is_ready

# Two guests that take all the CPU they get, in the place of the lab's own; the node has two vCPUs.
# They are declared stopped, and so is the laptop's: the runs that make the pool are slow enough.
BURNERS = """
_burn = {"image": "tiny", "vcpus": 1, "memory_mib": 160, "minimum_mib": 96,
         "cmdline_extra": "ppn.burn=1", "state": "stopped"}
_by_name["server"]["vms"] = [
    {**_burn, "name": "heavy", "weight": 300},
    {**_burn, "name": "light", "weight": 100},
]
_by_name["laptop"]["vms"][0]["state"] = "stopped"
"""
ALONE = (
    BURNERS
    + """
_by_name["server"]["vms"][1] |= {"state": "running", "weight": 1}
"""
)
WINDOW_S = 20
WINDOWS = 3
ANSWER_S = 180
STATE = "ppn host state --json"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the machines are first made into."""
    return inventory_with(tmp_path_factory.mktemp("burners"), BURNERS)


@pytest.fixture(scope="module")
def machines(inventory: str) -> Iterator[LabPool]:
    """A pool whose server is a QEMU machine with working nested KVM."""
    pool = LabPool(f"vm-{os.getpid()}")
    try:
        pool.lab("up", "--machine", "server")
        run = pool.pyinfra("-y", inventory=inventory, timeout=1200)
        assert run.returncode == 0, run.log
        yield pool
    finally:
        pool.lab("destroy")


class Hung(Exception):
    """The server's machine has stopped to answer.

    Seen once with QEMU's emulation of nested virtualisation: a processor that ran a guest all the
    time had interrupts pending and took none, and the machine's own tasks waited for ever.
    """


def answer(pool: LabPool, command: str) -> str:
    """What a command on the server prints; Hung when it does not end."""
    argv = ["ssh", "-F", str(pool.paths.ssh_config), "server", command]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise Hung(command) from late
    assert done.returncode == 0, done.stderr
    return done.stdout


def unless_it_hangs(pool: LabPool, measure: Callable[[], None], *vms: str) -> None:
    """Measure with running guests; once more, on a machine started anew, when it has hung."""
    try:
        measure()
    except Hung as hung:
        print(f"the server's machine has hung in {hung}: started anew")
        process = recorded(pool.paths.node("server").process)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        pool.lab("up")
        for vm in vms:
            eventually(partial(is_ready, pool, "server", vm), vm, seconds=300)
        measure()


def scope(pool: LabPool, vm: str) -> str:
    """The cgroup of a VM on the server: one of its own (CPU-02)."""
    pid = {one["name"]: one for one in json.loads(answer(pool, STATE))["vms"]}[vm]["pid"]
    line = answer(pool, f"cat /proc/{pid}/cgroup").strip()
    group = line.removeprefix("0::")
    return "/sys/fs/cgroup" + re.sub(r"(\.scope)/.*", r"\1", group)


@dataclass(frozen=True)
class Window:
    """CPU 0 of the server over some time: seconds each VM used, seconds idle, seconds in all."""

    used: tuple[float, ...]
    idle: float
    length: float


def watch(pool: LabPool, *vms: str) -> Window:
    """One window by the server's own clock."""
    stats = " ".join(f"'{scope(pool, vm)}/cpu.stat'" for vm in vms)
    read = f"cat /proc/uptime; grep '^cpu0 ' /proc/stat; grep -h usage_usec {stats}"
    lines = answer(pool, f"{read}; sleep {WINDOW_S}; {read}").splitlines()
    half = len(lines) // 2
    before, after = (reading(lines[:half]), reading(lines[half:]))
    clock, idle, *used = (new - old for old, new in zip(before, after, strict=True))
    return Window(tuple(used), idle, clock)


def reading(lines: list[str]) -> list[float]:
    """Seconds since boot, idle seconds of CPU 0, and seconds each VM used."""
    uptime, cpu, *stats = lines
    ticks = cpu.split()
    idle = (int(ticks[4]) + int(ticks[5])) / 100
    return [float(uptime.split()[0]), idle, *(int(line.split()[1]) / 1e6 for line in stats)]


def pin_to_one_cpu(pool: LabPool, *vms: str) -> None:
    """Make VMs compete: all their threads on CPU 0 of the server."""
    for vm in vms:
        answer(pool, f"virsh vcpupin {vm} 0 0 --live && virsh emulatorpin {vm} 0 --live")


def has_memory(pool: LabPool, mib: int) -> bool:
    """Whether the guest `light` has so much memory now."""
    return bool(pool.vms("server")["light"]["memory"]["current_mib"] == mib)


def test_second_run_changes_nothing(machines: LabPool, inventory: str) -> None:
    run = machines.pyinfra("-y", inventory=inventory)
    assert run.returncode == 0, run.log
    assert run.changed == set(), run.log


def test_kvm_is_proven_where_it_works(machines: LabPool) -> None:
    """HOST-09, HOST-10: the same image runs under KVM on one node and under TCG on the other."""
    assert machines.state("server")["kvm"]["usable"] is True
    assert machines.state("laptop")["kvm"]["usable"] is False
    machines.run("server", "ppn vm start notes")
    notes = machines.vms("laptop")["notes"]
    assert (notes["state"], notes["accelerator"]) == ("running", "tcg")
    # Emulation inside emulation takes CPU time from the tests that follow.
    machines.run("laptop", "virsh destroy notes")
    for vm in ("heavy", "light"):
        machines.run("server", f"ppn vm start {vm}")
        assert machines.vms("server")[vm]["accelerator"] == "kvm"
    for vm in ("heavy", "light"):
        eventually(partial(is_ready, machines, "server", vm), vm, seconds=300)


def test_each_vm_keeps_to_one_numa_node(machines: LabPool) -> None:
    """NUMA-01, NUMA-02: on a kernel with two NUMA nodes, by the pages QEMU really has."""
    used = set()
    for vm in ("heavy", "light"):
        view = machines.vms("server")[vm]
        assert view["pinning"]["pinned"], view
        (cpu,), (node,) = view["pinning"]["wanted"]["cpus"], view["pinning"]["wanted"]["nodes"]
        maps = machines.run("server", f"cat /proc/{view['pid']}/numa_maps")
        assert re.search(rf" prefer(?: \(many\))?:{node} ", maps), maps
        # Without files, whose pages were there before, wherever that is.
        own = "\n".join(line for line in maps.splitlines() if " file=" not in line)
        pages = {at: sum(map(int, re.findall(rf" N{at}=(\d+)", own))) for at in (0, 1)}
        print(f"{vm}: CPU {cpu}, NUMA node {node}, pages {pages}")
        assert pages[node] > 0.9 * sum(pages.values())
        used.add((cpu, node))
    assert used == {(0, 0), (1, 1)}


def test_cpu_time_follows_the_weights(machines: LabPool) -> None:
    """CPU-04, CPU-06: 300 to 100 on one CPU is 3 to 1."""
    unless_it_hangs(machines, partial(compete, machines), "heavy", "light")


def compete(pool: LabPool) -> None:
    """Let the two guests compete for one CPU."""
    pin_to_one_cpu(pool, "heavy", "light")
    ratios = []
    # What else the server does falls on one of them now and then: a window can be off.
    for _ in range(WINDOWS):
        window = watch(pool, "heavy", "light")
        heavy, light = window.used
        print(f"heavy {heavy:.1f} s, light {light:.1f} s: {heavy / light:.2f} to 1 ({window})")
        ratios.append(heavy / light)
        if 3 * 0.85 <= ratios[-1] <= 3 * 1.15:
            return
    raise AssertionError(ratios)


def test_changes_are_live(machines: LabPool, tmp_path: Path) -> None:
    """BAL-12, CPU-03, CPU-07: weight and balloon leave QEMU and the guest as they were."""

    def identity() -> tuple[int, str]:
        said = "\n".join(machines.serial("server", "light"))
        # A line may be read while it is being written.
        boots = re.findall(r"boot_id=([0-9a-f-]{36})", said)
        return machines.vms("server")["light"]["pid"], boots[-1]

    before = identity()
    alone = inventory_with(tmp_path, ALONE)
    run = machines.pyinfra("-y", "--limit", "server", inventory=alone)
    assert run.returncode == 0, run.log
    weight = machines.vms("server")["light"]["weight"]
    assert (weight["actual"], weight["enforced"]) == (1, True)
    file = f"'{scope(machines, 'light')}/cpu.weight'"
    assert machines.run("server", f"cat {file}").strip() == "1"
    # Changed by hand, it follows the ledger again with the agent's next look.
    machines.run("server", f'sh -c "echo 500 >{file}"')
    eventually(lambda: machines.run("server", f"cat {file}").strip() == "1", "weight 1 again")
    for mib in (112, 160):
        machines.run("server", f"ppn host balloon light {mib}")
        eventually(partial(has_memory, machines, mib), f"the balloon is at {mib} MiB")
    assert identity() == before


def test_one_guest_alone_gets_the_cpu_whatever_its_weight(machines: LabPool) -> None:
    """CPU-05: weight 1 is no limit."""
    unless_it_hangs(machines, partial(have_it_all, machines), "light")


def have_it_all(pool: LabPool) -> None:
    """Let one guest have a CPU for itself."""
    pin_to_one_cpu(pool, "light")
    windows = []
    for _ in range(WINDOWS):
        windows.append(watch(pool, "light"))
        print(f"light alone: {windows[-1]}")
        if windows[-1].used[0] >= 0.95 * windows[-1].length:
            return
    raise AssertionError(windows)


@pytest.mark.fault(
    "a node is rebooted",
    "the agent starts the VMs that ran and leaves stopped ones alone; nothing is forgotten",
)
def test_a_reboot_brings_back_what_ran(machines: LabPool) -> None:
    """HOST-07: with the identity each VM had, and no run of the operator's."""
    before = machines.vms("server")
    assert {name: vm["state"] for name, vm in before.items()} == {
        "heavy": "stopped",
        "light": "running",
    }
    boot_id = machines.state("server")["boot_id"]
    machines.node("server").run("systemctl reboot")
    eventually(lambda: server_is_down(machines), "the server is down", seconds=180)
    machines.lab("up")
    assert machines.state("server")["boot_id"] != boot_id

    def runs_again() -> bool:
        vm = machines.vms("server").get("light", {})
        return vm.get("state") == "running" and vm.get("phase") == "ready"

    eventually(runs_again, "the VM that ran runs again", seconds=300)
    after = machines.vms("server")
    assert after["heavy"]["state"] == "stopped"
    assert {name: vm["uuid"] for name, vm in after.items()} == {
        name: vm["uuid"] for name, vm in before.items()
    }


def server_is_down(pool: LabPool) -> bool:
    """Whether the server's machine has ended."""
    nodes = json.loads(pool.lab("status", "--json"))["nodes"]
    return any(node["node"] == "server" and node["state"] == "stopped" for node in nodes)
