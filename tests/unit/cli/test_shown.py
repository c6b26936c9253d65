"""What tenants and their guests wrote, as an operator's terminal gets it."""

from __future__ import annotations

import pytest

from ppn.cli import findings, orders
from ppn.cli.output import print_error
from ppn.diagnosis.causes import Cause
from ppn.diagnosis.evidence import Evidence, Trouble
from ppn.errors import PpnError
from ppn.wire.diagnosis import Inspection

# Moves the cursor up, clears what stands there, and says something else; another one ends a line.
HOSTILE = "a\x1b[9A\x1b[2Jnothing is wrong\x9b0m\r\x07z"


def clean(text: str) -> bool:
    """Whether nothing in a text moves a cursor but the ends of its lines."""
    return all(sign.isprintable() or sign == "\n" for sign in text)


def test_a_label_of_a_tenants_choice_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """INV-02, CLI-03: labels are any words; a list of VMs stays a list."""
    vm = {"id": "vm-a", "state": "running", "owner": "acme", "vcpus": 2, "memory_mib": 1024}
    orders.show_vms([{"node": "laptop", "vm": {**vm, "label": HOSTILE}}])
    said = capsys.readouterr().out
    assert clean(said) and "vm-a" in said and "nothing is wrong" in said
    print_error(PpnError(f"holds no VM with label {HOSTILE}\nsecond line"), as_json=False)
    said = capsys.readouterr().err
    assert clean(said) and said.count("\n") == 2


def test_what_a_guest_wrote_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """CLI-03: or a guest could tell whoever looks at it that nothing is wrong."""
    trouble = Trouble("node laptop", PpnError(HOSTILE))
    inspection = Inspection(vm="vm-a", qemu_log=(HOSTILE,))
    evidence = Evidence(
        "vm-a",
        True,
        0.0,
        "1",
        troubles=(trouble,),
        console=f"{HOSTILE}\n\tin",
        inspection=inspection,
    )
    findings.show_evidence(evidence)
    findings.show_causes([Cause("c", "error", "title", "step", (HOSTILE,))])
    said = capsys.readouterr().out
    assert clean(said) and said.count("nothing is wrong") == 4
