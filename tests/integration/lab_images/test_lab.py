"""Labs of containers on this machine: up, mended, side by side, and gone without a trace."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.paths import LabPaths
from lab.process import recorded
from lab.topology import NODES

CHECKOUT = Path(__file__).resolve().parents[3]
MINE, OTHER, THIRD = (f"{kind}-{os.getpid()}" for kind in ("one", "other", "third"))


def lab(command: str, name: str, *words: str, accept: int = 0) -> str:
    """Run a command of the lab and return what it printed on both channels."""
    argv = [sys.executable, "-m", "lab", command, "--name", name, *words]
    done = subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == accept, done.stdout + done.stderr
    return done.stdout + done.stderr


def on_node(name: str, node: str, command: str, accept: tuple[int, ...] = (0,)) -> str:
    """Run a shell line on a node."""
    config = str(LabPaths(name).ssh_config)
    argv = ["ssh", "-F", config, node, command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in accept, done.stderr
    return done.stdout


def traces(*names: str) -> list[str]:
    """All that a running lab has on this machine, outside its own state."""
    prefixes = tuple(f"ppn-{name}-" for name in names)
    found = [f"namespace {path.name}" for path in Path("/run/netns").glob("ppn-*")]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines()]
    for group in Path("/sys/fs/cgroup").glob("*/ppn-*"):
        found.append(f"group {group.name}")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append("process " + process.read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    homes = tuple(str(LabPaths(name).state_dir) for name in names)
    sockets = tuple(str(LabPaths(name).runtime_dir) for name in names)
    found += [f"run {path}" for path in sockets if Path(path).exists()]
    marks = (*prefixes, *homes, *sockets)
    return [line for line in found if any(mark in line for mark in marks)]


def root_network() -> str:
    """Links, addresses, routes and firewall of this machine's own network."""
    shown = []
    for argv in (["ip", "-o", "address"], ["ip", "route"], ["nft", "list", "ruleset"]):
        shown.append(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return "".join(shown)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a lab's own state, nodes' disks aside, with inode and time of change."""
    files = (path for path in folder.rglob("*") if "nodes" not in path.parts and path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def machine() -> str:
    """This machine's own network before any lab of ours."""
    return root_network()


@pytest.fixture(scope="module")
def labs(machine: str) -> Iterator[tuple[str, str]]:
    """Two labs side by side."""
    try:
        lab("up", MINE)
        lab("up", OTHER)
        yield MINE, OTHER
    finally:
        lab("destroy", MINE)
        lab("destroy", OTHER)


def test_machines_own_network_gets_nothing(labs: tuple[str, str], machine: str) -> None:
    """No link, address, route or rule of a lab is in the machine's own network."""
    assert root_network() == machine


def test_two_labs_with_the_same_addresses(labs: tuple[str, str]) -> None:
    """Each name leads to its own node, with a host key and a machine id of its own."""
    for node in NODES:
        ids = {on_node(name, node.name, "hostname; cat /etc/machine-id") for name in labs}
        assert len(ids) == 2
        assert all(text.startswith(f"{node.name}\n") for text in ids)
    keys = {LabPaths(name).known_hosts.read_text() for name in labs}
    assert len(keys) == 2


def test_nodes_are_well(labs: tuple[str, str]) -> None:
    """systemd finds nothing wrong, and only SSH listens."""
    for node in NODES:
        assert on_node(MINE, node.name, "systemctl is-system-running --wait") == "running\n"
        listening = on_node(MINE, node.name, "ss -Hltun").splitlines()
        assert {line.split()[4].rpartition(":")[2] for line in listening} == {"22"}


def test_sites_are_behind_their_routers(labs: tuple[str, str]) -> None:
    """Out through the router, in only where it forwards, and nowhere beyond the lab."""
    ping = "ping -c 1 -W 2"
    on_node(MINE, "laptop", f"{ping} 198.51.100.10 && {ping} 198.51.100.11")
    on_node(MINE, "laptop", f"{ping} 192.168.1.10", accept=(1,))
    on_node(MINE, "relay", f"{ping} 192.168.1.10", accept=(1, 2))
    on_node(MINE, "server", f"{ping} 192.0.2.1", accept=(1,))
    banner = "exec 3<>/dev/tcp/198.51.100.11/22 && head -c 4 <&3"
    on_node(MINE, "relay", f"timeout 2 bash -c '{banner}'", accept=(124,))


def test_cut_and_heal(labs: tuple[str, str]) -> None:
    """The two sites lose each other and keep the relay, until healed."""
    lab("cut", MINE, "site-a", "site-b")
    try:
        on_node(MINE, "server", "ping -c 1 -W 2 198.51.100.12", accept=(1,))
        on_node(MINE, "server", "ping -c 1 -W 2 198.51.100.10")
        on_node(OTHER, "server", "ping -c 1 -W 2 198.51.100.12")
    finally:
        lab("heal", MINE, "site-a", "site-b")
    on_node(MINE, "server", "ping -c 1 -W 5 198.51.100.12")


def test_unknown_host_key_is_refused(labs: tuple[str, str]) -> None:
    """A node whose key is not the one its console showed is not trusted."""
    paths = LabPaths(MINE)
    argv = ["ssh", "-F", str(paths.ssh_config), "-o", "ControlPath=none"]
    argv += ["-o", f"UserKnownHostsFile={LabPaths(OTHER).known_hosts}", "server", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 255
    assert "verification failed" in done.stderr


def test_second_up_changes_nothing(labs: tuple[str, str]) -> None:
    """Same processes, same files, same boots."""
    state = LabPaths(MINE).state_dir
    boots = [on_node(MINE, node.name, "cat /proc/sys/kernel/random/boot_id") for node in NODES]
    before = contents(state), [recorded(LabPaths(MINE).node(n.name).process) for n in NODES]
    assert "All nodes are running" in lab("up", MINE)
    after = contents(state), [recorded(LabPaths(MINE).node(n.name).process) for n in NODES]
    assert after == before
    assert None not in after[1]
    assert boots == [
        on_node(MINE, node.name, "cat /proc/sys/kernel/random/boot_id") for node in NODES
    ]


def test_killed_node_is_mended(labs: tuple[str, str]) -> None:
    """Only the dead node is booted again, with its files and its host key."""
    paths = LabPaths(MINE)
    on_node(MINE, "laptop", "echo kept >/root/note; sync")
    known = paths.known_hosts.read_text()
    dead, alive = (recorded(paths.node(name).process) for name in ("laptop", "server"))
    assert dead is not None
    os.kill(dead.pid, signal.SIGKILL)
    while recorded(paths.node("laptop").process) is not None:
        time.sleep(0.05)
    lab("up", MINE)
    assert on_node(MINE, "laptop", "cat /root/note") == "kept\n"
    assert recorded(paths.node("server").process) == alive
    assert paths.known_hosts.read_text() == known


def test_missing_cable_is_mended(labs: tuple[str, str]) -> None:
    """A link someone removed by hand is laid again."""
    argv = ["ip", "-n", LabPaths(MINE).namespace("site-a"), "link", "delete", "wan"]
    subprocess.run(argv, check=True, timeout=20)
    lab("up", MINE)
    on_node(MINE, "server", "ping -c 1 -W 5 198.51.100.10")


def test_other_kind_is_refused(labs: tuple[str, str]) -> None:
    """Containers are not turned into machines behind the operator's back."""
    assert "wrong_kind" in lab("up", MINE, "--vm", accept=1)


def test_held_lab_is_refused(labs: tuple[str, str]) -> None:
    """Two commands never change one lab at once."""
    with open(f"/run/lock/ppn-lab-{MINE}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "lab_busy" in lab("up", MINE, accept=1)


def test_down_leaves_nothing_and_up_resumes(labs: tuple[str, str], machine: str) -> None:
    """No process, mount, namespace, group or socket is left; the disks are."""
    on_node(MINE, "server", "echo kept >/root/note")
    running = [recorded(LabPaths(MINE).node(node.name).process) for node in NODES]
    assert traces(MINE)
    lab("down", MINE)
    assert traces(MINE) == []
    assert not any(process and Path(f"/proc/{process.pid}/exe").exists() for process in running)
    assert root_network() == machine
    on_node(OTHER, "server", "true")
    lab("up", MINE)
    assert on_node(MINE, "server", "cat /root/note") == "kept\n"


def interrupt(number: signal.Signals, met: Callable[[], bool]) -> None:
    """Start `up`, and send it a signal once it has come so far."""
    argv = [sys.executable, "-m", "lab", "up", "--name", THIRD]
    started = subprocess.Popen(argv, cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    while not met() and started.poll() is None:
        time.sleep(0.02)
    started.send_signal(number)
    started.wait(timeout=300)


def test_interrupted_up_can_be_torn_down_or_run_again(machine: str) -> None:
    """Killed anywhere, `up` leaves what the next `up` takes over and `destroy` removes."""
    relay = LabPaths(THIRD).node("relay")
    try:
        interrupt(signal.SIGINT, lambda: any(Path("/run/netns").glob(f"ppn-{THIRD}-*")))
        interrupt(signal.SIGKILL, lambda: recorded(relay.process) is not None)
        lab("up", THIRD)
        assert on_node(THIRD, "relay", "hostname") == "relay\n"
    finally:
        lab("destroy", THIRD)
    assert traces(THIRD) == []
    assert not LabPaths(THIRD).state_dir.exists()
    assert root_network() == machine
