"""A disk that fills up while a VM is made: a clear error, and nothing half-made remains.

The VMs' folder is a small file system of its own. It is full when it may have no further file, and
so the place where an apply is cut short can be chosen to the file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import guest
from ppn.host.sidecar import read_sidecar
from ppn.run import run
from tests.integration.host import still
from tests.integration.host.node import PPN, Node, is_alive, spec_text

FULL = "No space left on device"
LIMITS = "mode=711,size=2g,nr_inodes=1000"


@pytest.fixture(scope="module")
def small_node() -> Iterator[Node]:
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ppn-host-") as root:
        node = Node(Path(root))
        node.prepare(guest.cached())
        node.paths.vms.mkdir(parents=True)
        run(("mount", "-t", "tmpfs", "-o", LIMITS, "tmpfs", node.paths.vms), timeout=30)
        try:
            daemon = node.start()
            try:
                yield node
            finally:
                node.stop(daemon)
        finally:
            run(["umount", node.paths.vms], timeout=30)


@pytest.fixture
def node(small_node: Node) -> Iterator[Node]:
    """The node, empty and with room."""
    assert small_node.nothing_is_left()
    yield small_node
    allow(small_node, LIMITS)
    small_node.clear()


def allow(node: Node, options: str) -> None:
    """Give the VMs' file system other limits."""
    run(["mount", "-o", f"remount,{options}", node.paths.vms], timeout=30)


def files_on(node: Node) -> int:
    """How many files and folders the VMs' file system holds, itself included."""
    figures = os.statvfs(node.paths.vms)
    return figures.f_files - figures.f_ffree


def test_disk_that_is_full_at_any_file_leaves_nothing(node: Node) -> None:
    """HOST-11: from the first file of a new VM to the last, and then the same apply succeeds."""
    failures = []
    for most in range(files_on(node), 32):
        allow(node, f"nr_inodes={most}")
        done = node.ppn("host", "apply", "--json", text=spec_text({}), accept=(0, 1))
        if done.returncode == 0:
            break
        error = json.loads(done.stderr)["error"]
        assert FULL in error["message"], error
        assert node.nothing_is_left(), f"with {most} files: {error}"
        failures.append(error["code"])
    # The folder and its sidecar; the disk, which qemu-img makes; the seed; the log, which is
    # libvirt's; and the sidecar again.
    assert {"file_failed", "command_failed", "libvirt_failed"} <= set(failures)
    assert len(failures) >= 6
    assert not node.apply()["changed"]
    assert node.wait_ready("web")


@pytest.mark.fault(
    "the disk fills up while a file is written",
    "the reason is told and nothing of the VM is left",
)
def test_disk_that_fills_up_inside_a_file_leaves_nothing(node: Node, tmp_path: Path) -> None:
    """HOST-11: somebody takes the last room after the VM was admitted."""
    taker = tmp_path / "qemu-img"
    real = shutil.which("qemu-img")
    taker.write_text(
        f"#!/bin/sh -e\nmount -o remount,size=64k '{node.paths.vms}'\nexec '{real}' \"$@\"\n"
    )
    taker.chmod(0o755)
    environment = {**node.environment, "PATH": f"{tmp_path}:{node.environment['PATH']}"}
    words = (PPN, "host", "apply", "--json")
    done = run(words, timeout=300, input=spec_text({}), env=environment, accept=(1,))
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "command_failed" and FULL in error["message"]
    assert node.nothing_is_left()


@pytest.mark.fault(
    "a change cannot be recorded for want of room",
    "the sidecar keeps its old content and the guest runs on",
)
def test_change_that_cannot_be_recorded_leaves_the_vm_as_it_was(node: Node) -> None:
    """HOST-05, HOST-11: the sidecar has its old content, and the guest runs on."""
    first = node.apply(image=still.NAME, label="old")
    allow(node, f"nr_inodes={files_on(node)}")
    text = spec_text({"image": still.NAME, "label": "new"})
    done = node.ppn("host", "apply", "--json", text=text, accept=(1,))
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "file_failed" and FULL in error["message"]
    sidecar = read_sidecar(node.paths.vm("web").sidecar)
    assert sidecar is not None and sidecar.spec.label == "old"
    assert is_alive(first["vm"]["pid"])
    allow(node, "nr_inodes=1000")
    again = node.apply(image=still.NAME, label="new")
    assert (again["changed"], again["vm"]["pid"]) == (True, first["vm"]["pid"])
