"""A machine's control socket: what QEMU is told, and what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.qmp import ask
from tests.integration.proxy.parts import wait_for

SECONDS = 120


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """The control socket of a machine without anything."""
    path = tmp_path / "qmp.sock"
    argv = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
    process = subprocess.Popen([*argv, "-qmp", f"unix:{path},server=on,wait=off"])
    try:
        wait_for(lambda: answers(path), "the control socket", SECONDS)
        yield path
    finally:
        process.kill()
        process.wait(timeout=SECONDS)


def answers(path: Path) -> bool:
    """Whether QEMU takes commands: its socket has a name before it listens there."""
    try:
        return ask(path, seconds=SECONDS) == []
    except OSError:
        return False


def test_each_command_has_its_answer(machine: Path) -> None:
    """QEMU tells of the stop before it says that it was done."""
    info = {"execute": "human-monitor-command", "arguments": {"command-line": "info status"}}
    stop, fly = {"execute": "stop"}, {"execute": "fly"}
    stopped, shown, wrong = ask(machine, stop, info, fly, seconds=SECONDS)
    assert stopped == {"return": {}}
    assert shown["return"].startswith("VM status: paused")
    assert wrong["error"]["class"] == "CommandNotFound"


def test_a_machine_that_has_ended_is_not_there_to_be_asked(machine: Path) -> None:
    assert ask(machine, {"execute": "quit"}, seconds=SECONDS) == [{"return": {}}]
    wait_for(lambda: not machine.exists(), "QEMU has ended", SECONDS)
    with pytest.raises(FileNotFoundError):
        ask(machine, {"execute": "quit"}, seconds=SECONDS)
