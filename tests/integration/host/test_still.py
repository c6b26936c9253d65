"""The still guest: its own code runs, and then it needs no processor any more."""

from __future__ import annotations

from tests.integration.host import still
from tests.integration.host.node import Node, wait_for


def test_the_still_guest_speaks_once_and_halts(node: Node) -> None:
    """No interrupt wakes it, and its second processor stays where the firmware left it."""
    node.apply(image=still.NAME)
    # What comes next is the jump, of two bytes.
    halted = f"EIP={still.ADDRESS + len(still.CODE) - 2:08x}"

    def registers() -> str:
        command = {"command-line": "info registers -a"}
        return str(node.order("web", "human-monitor-command", command))

    wait_for("it to halt", lambda: halted in registers(), 60)
    assert registers().count("HLT=1") == 2
    assert wait_for("its first output", lambda: node.serial("web"), 60) == "."
