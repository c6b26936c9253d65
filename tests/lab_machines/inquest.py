"""What an emulated machine that stopped to answer can still tell: of it and of its QEMU."""

from __future__ import annotations

import json
import socket

from lab.paths import NodePaths
from lab.process import recorded
from tests.lab_machines.installation import console

QUESTIONS = ("info status", "info registers -a", "info lapic 0", "info lapic 1")
# Registers that no code of a kernel's own depends on.
CALCULATING = ("FPR", "YMM")
ANSWER_SECONDS = 20
SHOWN_CHARACTERS = 4000


def last_words(paths: NodePaths) -> str:
    """All there is to find out why a machine was lost, before it is started anew.

    A QEMU that has ended without a word was reset by its guest: three faults in a row do that.

    Args:
        paths: the machine's files.
    """
    log = (paths.folder / "qemu.log").read_text(errors="replace")[-SHOWN_CHARACTERS:]
    asked = answers(paths) if recorded(paths.process) else "QEMU has ended"
    return f"{log}\n{console(paths.console_log)[-SHOWN_CHARACTERS:]}\n{asked}"


def answers(paths: NodePaths) -> str:
    """What QEMU says of its processors, or why it says nothing."""
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(ANSWER_SECONDS)
            control.connect(str(paths.qmp))
            with control.makefile("rwb") as lines:
                lines.readline()
                lines.write(b'{"execute": "qmp_capabilities"}\n')
                for question in QUESTIONS:
                    words = {"command-line": question}
                    asked = {"execute": "human-monitor-command", "arguments": words}
                    lines.write(json.dumps(asked).encode() + b"\n")
                lines.flush()
                found = [json.loads(lines.readline()) for _ in ("", *QUESTIONS)]
    except (OSError, ValueError) as error:
        return f"QEMU runs and does not answer: {error}"
    said = "\n".join(str(answer.get("return", answer)) for answer in found[1:])
    return "\n".join(line for line in said.splitlines() if not line.startswith(CALCULATING))
