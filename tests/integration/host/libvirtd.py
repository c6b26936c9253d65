"""A node's libvirtd, killed and started again beside its virtlogd, as its unit starts it."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from deploys.units import unit_text
from ppn.run import CommandFailed, run
from tests.integration.host.node import Node, end_process, wait_for


def kill_libvirtd(node: Node) -> None:
    """End a node's libvirtd without warning."""
    file = node.root / "libvirtd.pid"
    daemon = int(file.read_text())
    file.unlink()
    end_process(daemon)


def start_again(node: Node) -> subprocess.Popen[bytes]:
    """Start libvirtd where virtlogd still is: with its mounts, in its network."""
    virtlogd = (node.root / "virtlogd.pid").read_text().strip()
    enter = ("nsenter", "-t", virtlogd, "-m", "-n")
    run([*enter, *before_start()], timeout=60)
    conf, pid_file = node.root / "etc/libvirt/libvirtd.conf", node.root / "libvirtd.pid"
    with (node.root / "daemons.log").open("ab") as log:
        return subprocess.Popen(
            [*enter, "libvirtd", "-f", str(conf), "-p", str(pid_file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def before_start() -> list[str]:
    """What its unit does before each of its starts."""
    (line,) = (
        line for line in unit_text("libvirtd.conf").splitlines() if line.startswith("ExecStartPre=")
    )
    return shlex.split(line.removeprefix("ExecStartPre=-"))


@contextmanager
def libvirtd_again(node: Node) -> Iterator[None]:
    """A libvirtd that answers, for the block."""
    daemon = start_again(node)

    def back() -> bool:
        assert daemon.poll() is None, (node.root / "daemons.log").read_text()
        return answers(node)

    try:
        wait_for("libvirtd", back)
        yield
    finally:
        # By force: asked to end, it now and then waits 30 s for a thread of its own.
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(timeout=60)


def answers(node: Node) -> bool:
    """Whether a node's libvirtd does."""
    try:
        node.virsh("uri")
    except CommandFailed:
        return False
    return True
