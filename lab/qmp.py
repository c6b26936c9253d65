"""QEMU's control socket: commands and answers of a line each (QMP)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def ask(path: Path, *commands: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Have a machine's QEMU carry out commands, one after the other.

    Args:
        path: of its socket.
        commands: each with its name as `execute`.
        seconds: the deadline of each answer.

    Returns:
        What it said to each.

    Raises:
        OSError: nobody answers there in time, or QEMU has ended.
        ValueError: whoever answers is no QEMU.
    """
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(seconds)
        control.connect(str(path))
        with control.makefile("rwb") as lines:
            lines.readline()
            answers = []
            for command in ({"execute": "qmp_capabilities"}, *commands):
                lines.write(json.dumps(command).encode() + b"\n")
                lines.flush()
                answers.append(_answer(lines))
    return answers[1:]


def _answer(lines: Iterable[bytes]) -> dict[str, Any]:
    """The next line that is no event."""
    for line in lines:
        said: dict[str, Any] = json.loads(line)
        if "event" not in said:
            return said
    raise ConnectionError("QEMU has ended")
