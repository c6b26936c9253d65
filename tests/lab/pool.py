"""A lab as the tests use it: pyinfra runs, nodes to ask, guests to listen to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from lab import ssh
from lab.paths import LabPaths

CHECKOUT = Path(__file__).resolve().parent.parent.parent
INVENTORY = "inventories/lab/inventory.py"
SITE = "deploys/site.py"
# No measure of speed: a busy machine takes many times what an idle one does.
EVENTUALLY_SECONDS = 600
RUN_SECONDS = 300
PYINFRA_SECONDS = 1500
# The lab has limits of its own for each of its steps, and says more when one is over.
LAB_SECONDS = 5000


@dataclass(frozen=True)
class Run:
    """A finished pyinfra run: its exit code, what it printed, and its JSON report if it has one."""

    returncode: int
    report: dict[str, Any]
    log: str

    @property
    def announced(self) -> set[tuple[str, str]]:
        """Operation and host of every change the plan announces."""
        return {
            (operation["name"], host)
            for operation in self.report["plan"]
            for host in operation["hosts_with_change"] + operation["hosts_with_conditional_change"]
        }

    @property
    def changed(self) -> set[tuple[str, str]]:
        """Operation and host of every change the run made."""
        return {
            (operation["name"], host)
            for operation in self.report["results"]["operations"]
            for host in operation["success"]
        }


class Unreachable(AssertionError):
    """A node does not answer, or not in time."""


class LabPool:
    """One running lab.

    Args:
        name: the lab's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.paths = LabPaths(name)

    def lab(self, *words: str, timeout: float = LAB_SECONDS) -> str:
        """Run a command of the lab and return what it printed."""
        argv = [sys.executable, "-m", "lab", words[0], "--name", self.name, *words[1:]]
        done = subprocess.run(
            argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"lab {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def pyinfra_argv(self, *words: str, inventory: str = INVENTORY) -> list[str]:
        """The command line of a run over this lab."""
        pyinfra = str(Path(sys.executable).parent / "pyinfra")
        argv = [sys.executable, "-m", "lab", "exec", "--name", self.name, "--"]
        return [*argv, pyinfra, inventory, SITE, *words]

    def pyinfra(self, *words: str, inventory: str = INVENTORY) -> Run:
        """Run the whole site over this lab."""
        try:
            done = subprocess.run(
                self.pyinfra_argv("--json", *words, inventory=inventory),
                cwd=CHECKOUT,
                env=os.environ | {"PYINFRA_PROGRESS": "off"},
                capture_output=True,
                text=True,
                timeout=PYINFRA_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"pyinfra has not ended: {late.stderr!r}\n{processes()}") from late
        start = done.stdout.find("{")
        report = json.loads(done.stdout[start:]) if start >= 0 else {}
        return Run(done.returncode, report, done.stdout + done.stderr)

    def killed_pyinfra(self, seconds: float) -> None:
        """Start a run and kill it, with all it started, after so many seconds."""
        process = subprocess.Popen(
            self.pyinfra_argv("-y"),
            cwd=CHECKOUT,
            env=os.environ | {"PYINFRA_PROGRESS": "off"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)

    def node(self, name: str) -> Host:
        """A node, over the one multiplexed SSH connection the lab's settings keep."""
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(self.paths.ssh_config))

    def run(self, node: str, command: str, seconds: float = RUN_SECONDS) -> str:
        """Run a command on a node and return what it printed.

        Raises:
            Unreachable: there is no way to the node, or the command does not end.
        """
        argv = ssh.command(self.paths, node, [command])
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as late:
            raise Unreachable(f"{node} has not ended after {seconds:g} s: {command}") from late
        if done.returncode == 255:
            raise Unreachable(f"{node}: {done.stderr.strip()}")
        assert done.returncode == 0, f"{node}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.rstrip("\r\n")

    def state(self, node: str) -> dict[str, Any]:
        """What `ppn host state --json` says on a node."""
        state: dict[str, Any] = json.loads(self.run(node, "ppn host state --json"))
        return state

    def vms(self, node: str) -> dict[str, dict[str, Any]]:
        """The VMs of a node by name."""
        return {vm["name"]: vm for vm in self.state(node)["vms"]}

    def serial(self, node: str, vm: str) -> list[str]:
        """The lines a guest wrote to its serial console."""
        return self.run(node, f"cat /var/lib/ppn/vms/{vm}/serial.log").splitlines()


def processes() -> str:
    """Every process of this machine as a tree, those in container nodes too."""
    argv = ["ps", "-eo", "pid,etimes,stat,wchan:20,args", "--forest", "--width", "200"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout


def inventory_with(folder: Path, change: str) -> str:
    """The lab's inventory with a change made to it, as a file of its own.

    Args:
        folder: an empty folder for it.
        change: Python that changes `_by_name`, the data of each node by its name.
    """
    lab = CHECKOUT / "inventories" / "lab"
    (folder / "group_data").mkdir()
    group_data = (lab / "group_data" / "all.py").read_text(encoding="utf-8")
    (folder / "group_data" / "all.py").write_text(group_data, encoding="utf-8")
    source = (lab / "inventory.py").read_text(encoding="utf-8")
    path = folder / "inventory.py"
    path.write_text(f"{source}\n_by_name = dict(nodes)\n{change}\n", encoding="utf-8")
    return str(path)


def eventually(check: Callable[[], Any], what: str) -> Any:
    """Ask again until the answer is true, and return it.

    Args:
        check: what to ask.
        what: said when it does not come true.
    """
    deadline = time.monotonic() + EVENTUALLY_SECONDS
    while (asked := time.monotonic()) < deadline:
        if answer := check():
            return answer
        # What is waited for needs the processors too.
        time.sleep(max(0.5, time.monotonic() - asked))
    raise AssertionError(f"not within {EVENTUALLY_SECONDS} s: {what}")
