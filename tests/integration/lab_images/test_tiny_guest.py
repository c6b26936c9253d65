"""The tiny guest, started by a real QEMU without KVM."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import guest
from lab.image import node_image
from lab.node_vm import PROCESSOR

BEAT = re.compile(
    r"ppn-guest beat boot_id=[0-9a-f-]{36} n=(\d+) mem_total_kib=(\d+) mem_free_kib=(\d+)"
    r" disks=(\S*)\r?\n"
)
READY = re.compile(r"ppn-guest ready boot_id=[0-9a-f-]{36} cpus=(\d+) ")
PATIENCE_S = 600


class Guest:
    """A running guest: its serial console and its control socket."""

    def __init__(self, folder: Path, image: Path, cmdline_extra: str = "") -> None:
        self.serial = folder / "serial.log"
        self.serial.touch()
        self.socket = folder / "qmp"
        described = json.loads((image / "manifest.json").read_text())
        # fmt: off
        argv = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", PROCESSOR, "-machine", "q35",
            "-smp", "2", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(image / described["kernel"]),
            "-initrd", str(image / described["initrd"]),
            "-append", f"{described['cmdline']} {cmdline_extra}".strip(),
            "-serial", f"file:{self.serial}", "-qmp", f"unix:{self.socket},server=on,wait=off",
            "-device", "virtio-balloon-pci",
            "-drive", "if=virtio,driver=null-co,size=1M",
            "-drive", "if=virtio,driver=null-co,size=1M",
        ]
        # fmt: on
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)

    def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """The first match on the console."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if found := pattern.search(self.serial.read_text(errors="replace")):
                return found
            time.sleep(0.05)
        raise AssertionError(f"no {pattern.pattern} in: {self.serial.read_text()}")

    def ask(self, verb: str, **arguments: int) -> None:
        """Send one command to the control socket."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.socket))
            with control.makefile("rw") as lines:
                lines.readline()
                for command in (
                    {"execute": "qmp_capabilities"},
                    {"execute": verb, "arguments": arguments},
                ):
                    lines.write(json.dumps(command))
                    lines.flush()
                    assert "error" not in lines.readline()


@pytest.fixture(scope="module")
def image() -> Path:
    """The guest's image folder, from the cache."""
    return guest.cached()


@pytest.fixture
def running(tmp_path: Path, image: Path) -> Iterator[Guest]:
    """A guest that is up; ended with the test."""
    started = Guest(tmp_path, image)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_manifest_tells_what_is_there(image: Path) -> None:
    """The folder is what its description says, by hash."""
    described = json.loads((image / "manifest.json").read_text())
    assert described["name"] == "tiny"
    assert described["disk"] is None
    for name, digest in described["sha256"].items():
        assert hashlib.sha256((image / name).read_bytes()).hexdigest() == digest


def test_same_inputs_same_bytes(image: Path, tmp_path: Path) -> None:
    """Two builds cannot be told apart, so a node never gets the same image twice."""
    node = node_image()
    again = guest.build(tmp_path / "again", node.kernel, node.modules, node.busybox)
    for name in ("initrd", "kernel", "manifest.json"):
        assert (again / name).read_bytes() == (image / name).read_bytes()


def test_guest_speaks_gives_memory_and_powers_off(running: Guest) -> None:
    """Ready once, a beat a second, both disks, less memory by balloon, and off by ACPI (BAL-04)."""
    assert running.wait_for(READY)[1] == "2"
    first = running.wait_for(BEAT)
    assert first[4] == "vda,vdb"
    running.ask("balloon", value=128 * 2**20)
    deadline = time.monotonic() + PATIENCE_S
    while int(BEAT.findall(running.serial.read_text())[-1][1]) > int(first[2]) - 100 * 1024:
        assert time.monotonic() < deadline, running.serial.read_text()
        time.sleep(0.1)
    running.ask("system_powerdown")
    assert running.process.wait(timeout=PATIENCE_S) == 0
    assert len(READY.findall(running.serial.read_text())) == 1


def test_burning_guest_still_beats(tmp_path: Path, image: Path) -> None:
    """A guest told to burn uses its CPUs and goes on reporting."""
    burning = Guest(tmp_path, image, "ppn.burn=1")
    try:
        burning.wait_for(re.compile(r"ppn-guest beat \S+ n=3 "))
    finally:
        burning.process.kill()
        burning.process.wait()
