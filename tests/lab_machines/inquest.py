"""What an emulated machine that stopped to answer can still tell: of it and of its QEMU."""

from __future__ import annotations

from lab.paths import NodePaths
from lab.process import recorded
from lab.qmp import ask
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
    asked = [
        {"execute": "human-monitor-command", "arguments": {"command-line": question}}
        for question in QUESTIONS
    ]
    try:
        found = ask(paths.qmp, *asked, seconds=ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        return f"QEMU runs and does not answer: {error}"
    said = "\n".join(str(answer.get("return", answer)) for answer in found)
    return "\n".join(line for line in said.splitlines() if not line.startswith(CALCULATING))
