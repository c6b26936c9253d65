"""A run that has nothing to change over the whole lab: pyinfra against an Ansible playbook."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.result import Result, times_faster
from bench.wanted import ansible_inventory
from lab import lifecycle, wiring
from lab.paths import LabPaths
from lab.topology import OPERATOR
from ppn.errors import PpnError
from ppn.run import Completed, run

AIM = 10.0
LAB = "bench"
CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
INVENTORY = "inventories/lab/inventory.py"
SITE = "deploys/site.py"
PLAYBOOK = CHECKOUT / "bench" / "ansible" / "site.yml"
RUN_SECONDS = 900
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


class NotComparable(PpnError):
    """A run that was to change nothing changed something, or failed: its time means nothing."""

    code = "not_comparable"


class OneLab:
    """A converged lab and the two commands that are measured in it.

    Args:
        lab: a lab that is up.
        folder: for Ansible's inventory and its sockets; a short path.
    """

    def __init__(self, lab: LabPaths, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.hosts = folder / "hosts.json"

    def ours(self) -> Completed:
        """One run of pyinfra over the site."""
        program = str(PROGRAMS / "pyinfra")
        return self._run([program, "-y", "--json", INVENTORY, SITE], {"PYINFRA_PROGRESS": "off"})

    def peer(self) -> Completed:
        """One run of the playbook."""
        environment = {
            "ANSIBLE_CONFIG": str(PLAYBOOK.with_name("ansible.cfg")),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "ssh"),
            "LC_ALL": "C.UTF-8",
        }
        program = str(PROGRAMS / "ansible-playbook")
        return self._run([program, "-i", str(self.hosts), str(PLAYBOOK)], environment)

    def prepare(self) -> None:
        """Converge the lab by our own run, and write the inventory for the playbook."""
        done = self.ours()
        if done.returncode != 0:
            raise NotComparable("the lab does not converge", hint=last_lines(done))
        self.hosts.write_text(json.dumps(ansible_inventory(self.lab, self.folder)))
        (self.folder / "ssh").mkdir()
        # Both once unmeasured: byte code is compiled and connections of the peer are made.
        self.timed_ours()
        self.timed_peer()

    def timed_ours(self) -> float:
        """Seconds of one run of ours, which must have changed nothing."""
        before = time.monotonic()
        done = self.ours()
        seconds = time.monotonic() - before
        if changes := our_changes(done):
            raise NotComparable(f"our run changed {', '.join(changes)}", hint=last_lines(done))
        return seconds

    def timed_peer(self) -> float:
        """Seconds of one run of the playbook, which must have changed nothing."""
        before = time.monotonic()
        done = self.peer()
        seconds = time.monotonic() - before
        if changes := peer_changes(done):
            raise NotComparable(f"the playbook changed {changes}", hint=last_lines(done))
        return seconds

    def hang_up(self) -> None:
        """End the connections that Ansible's ssh keeps."""
        for socket in (self.folder / "ssh").glob("*"):
            run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "node"], timeout=30,
                accept=(0, 255))  # fmt: skip

    def _run(self, words: list[str], environment: Mapping[str, str]) -> Completed:
        return run(
            wiring.inside(self.lab, OPERATOR, words),
            timeout=RUN_SECONDS,
            cwd=CHECKOUT,
            env={**os.environ, "PPN_LAB": self.lab.name, **environment},
            accept=range(256),
        )


def measure(runs: int) -> Result:
    """Wall time of no-change runs in pairs, the first of each pair by turns.

    Args:
        runs: how many pairs.

    Raises:
        NotComparable: a run changed something or failed.
        LabError: the lab does not come up.
    """
    ours: list[float] = []
    peer: list[float] = []
    with converged_lab() as lab:
        for pair in range(runs):
            if pair % 2:
                peer.append(lab.timed_peer())
                ours.append(lab.timed_ours())
            else:
                ours.append(lab.timed_ours())
                peer.append(lab.timed_peer())
            print(f"pair {pair + 1}: ours {ours[-1]:.2f} s, peer {peer[-1]:.2f} s", flush=True)
    return times_faster("converge", ours, peer, aim=AIM)


@contextmanager
def converged_lab() -> Iterator[OneLab]:
    """A lab of its own that has converged; it is destroyed at the end."""
    lab = LabPaths(LAB)
    with tempfile.TemporaryDirectory(prefix="ppn-bench-") as name:
        lifecycle.up(lab, None)
        one = OneLab(lab, Path(name))
        try:
            one.prepare()
            yield one
        finally:
            one.hang_up()
            lifecycle.destroy(lab)


def our_changes(done: Completed) -> list[str]:
    """What a run of pyinfra changed or failed at, from its JSON report; empty when nothing.

    Args:
        done: a finished run with `--json`.
    """
    start = done.stdout.find("{")
    if done.returncode != 0 or start < 0:
        return [f"nothing to be trusted: it ended with {done.returncode}"]
    operations = json.loads(done.stdout[start:])["results"]["operations"]
    if not operations:
        return ["nothing to be trusted: it ran no operation"]
    return [
        f"{operation['name']} on {host}"
        for operation in operations
        for host in (*operation["success"], *operation["error"])
    ]


def peer_changes(done: Completed) -> str:
    """What a run of Ansible changed or failed at, from its recap; empty when nothing.

    Args:
        done: a finished run of ansible-playbook.
    """
    recap = RECAP.findall(done.stdout)
    if done.returncode != 0 or not recap:
        return f"nothing to be trusted: it ended with {done.returncode}"
    return ", ".join(
        f"{host}: {changed} changed, {unreachable} unreachable, {failed} failed"
        for host, _, changed, unreachable, failed in recap
        if (changed, unreachable, failed) != ("0", "0", "0")
    )


def last_lines(done: Completed) -> str:
    """The end of what a program printed."""
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
