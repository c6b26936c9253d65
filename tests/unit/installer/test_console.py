"""Consoles and the firmware's list."""

from __future__ import annotations

import os
import pty
import time
from pathlib import Path

import pytest

from ppn.installer import execute
from ppn.installer.console import Console, consoles, write_patiently
from ppn.installer.efi import entries
from ppn.installer.execute import telling

LISTED = """BootCurrent: 0001
BootOrder: 0003,0001,0000
Boot0000* UiApp\tFvVol(7cb8bdc9)/FvFile(462caa21)
Boot0001* UEFI QEMU DVD-ROM\tPciRoot(0x0)/Pci(0x1f,0x2)
Boot0003* ppn node\tHD(1,GPT,6b0)/\\EFI\\systemd\\systemd-bootx64.efi
Boot000A  ppn node\tHD(1,GPT,6b1)/\\EFI\\systemd\\systemd-bootx64.efi
Boot0004* ppn node 2\tHD(1,GPT,6b2)/\\x
"""


def test_only_our_entries_are_ours() -> None:
    assert entries(LISTED) == ("0003", "000A")
    assert entries("") == ()


def test_lines_go_to_every_console_and_steer_none(tmp_path: Path) -> None:
    (tmp_path / "active").write_text("tty0 ttyS0\n")
    paths = consoles(tmp_path / "active", tmp_path)
    assert [path.name for path in paths] == ["tty0", "ttyS0"]
    (tmp_path / "ttyS0").touch()
    Console(paths).say("one \x1b[2J\ntwo")
    assert (tmp_path / "ttyS0").read_text() == "ppn-installer: one ?[2J\nppn-installer: two\n"


def test_a_line_nobody_reads_stops_nothing() -> None:
    """A serial console with flow control and nobody there takes nothing for ever."""
    reading, terminal = pty.openpty()
    try:
        path = Path(os.ttyname(terminal))
        assert write_patiently(path, b"x" * 100, 60)
        assert not write_patiently(path, b"x" * 1_000_000, 0.2)
    finally:
        os.close(reading)
        os.close(terminal)


def test_a_terminal_that_takes_a_line_gets_it_however_late() -> None:
    """As when the machine stood still for longer than a terminal is waited for."""
    reading, terminal = pty.openpty()
    try:
        assert write_patiently(Path(os.ttyname(terminal)), b"said", patience=0)
        assert os.read(reading, 100) == b"said"
    finally:
        os.close(reading)
        os.close(terminal)


def test_each_further_tenth_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "LOOK_SECONDS", 0.01)
    said: list[str] = []
    shown = iter([3, 12, 14, 55, 100])
    with telling(lambda: next(shown, 100), said.append):
        while "copied 100 %" not in said:
            time.sleep(0.005)
    assert said == ["copied 10 %", "copied 50 %", "copied 100 %"]
