"""A machine under test: QEMU with firmware and drives, and its serial console line by line."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.firmware import Drive, words
from lab.node_installed import plain
from lab.node_vm import PROCESSOR

MEMORY_MIB = 1536
SHOWN_LINES = 25
PAUSE_SECONDS = 0.1


class Machine:
    """A running machine.

    Args:
        process: QEMU.
        console: file that takes what the machine prints on its serial port.
    """

    def __init__(self, process: subprocess.Popen[bytes], console: Path) -> None:
        self.process = process
        self.console = console

    def text(self) -> str:
        """Everything printed so far, as a person reads it."""
        return plain(self.console.read_bytes()) if self.console.exists() else ""

    def wait_for(self, *patterns: str, seconds: float, after: int = 0) -> str:
        """Wait for the first of some patterns on the console, and return what matched.

        Args:
            patterns: regular expressions.
            seconds: the deadline.
            after: how many characters of the console have been judged before.

        Raises:
            AssertionError: it did not come in time, or the machine ended without it.
        """
        wanted = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            if found := wanted.search(self.text()[after:]):
                return found[0]
            if ended or time.monotonic() > deadline:
                how = "the machine ended" if ended else f"not within {seconds:g} s"
                raise AssertionError(f"{how}: {patterns}; its last lines:\n{self.tail()}")
            time.sleep(PAUSE_SECONDS)

    def wait_end(self, seconds: float) -> None:
        """Wait until the machine is off.

        Raises:
            AssertionError: it is not, in time.
        """
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(
                f"the machine is still on; its last lines:\n{self.tail()}"
            ) from late

    def tail(self) -> str:
        """The last lines of the console."""
        lines = [line for line in self.text().splitlines() if line.strip()]
        return "\n".join(f"    {line}" for line in lines[-SHOWN_LINES:])

    def cut_power(self) -> None:
        """End the machine at once: what it had not flushed is lost."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)


@contextmanager
def booted(
    folder: Path,
    variables: Path,
    drives: Sequence[Drive],
    *,
    memory_mib: int = MEMORY_MIB,
    more: Sequence[str] = (),
) -> Iterator[Machine]:
    """A machine for a block; it is off afterwards.

    Args:
        folder: takes its console and QEMU's own words.
        variables: its firmware's memory.
        drives: in the firmware's order.
        memory_mib: its memory.
        more: QEMU's words for what else it has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    console = folder / "console.log"
    console.unlink(missing_ok=True)
    argv = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR),
        *("-m", str(memory_mib), "-device", "virtio-rng-pci", "-nic", "none", *more),
        *("-serial", f"file:{console}"),
        *words(variables, drives),
    ]
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    machine = Machine(process, console)
    try:
        yield machine
    finally:
        if process.poll() is None:
            machine.cut_power()


def blank_disk(path: Path, size: str) -> Path:
    """A disk that was never written to."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), size]
    subprocess.run(argv, check=True, timeout=60)
    return path


def content_hash(path: Path) -> str:
    """SHA-256 of a raw disk's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
