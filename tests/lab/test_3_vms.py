"""The VMs the inventory declares are there, as declared."""

from __future__ import annotations

from functools import partial

import pytest

from tests.lab.pool import LabPool, eventually

VMS = {"server": {"web", "archive"}, "laptop": {"notes"}}


@pytest.mark.parametrize("node", VMS)
def test_declared_vms_run(pool: LabPool, node: str) -> None:
    """HOST-04, HOST-13: with the memory, minimum and image declared."""
    vms = pool.vms(node)
    assert set(vms) == VMS[node]
    for vm in vms.values():
        assert vm["state"] == "running"
        assert vm["sidecar"] == "ok"
        assert vm["memory"]["minimum_mib"] == 128
    assert pool.state(node)["unmanaged"] == []


@pytest.mark.parametrize("node", VMS)
def test_guests_run_their_code(pool: LabPool, node: str) -> None:
    for name in VMS[node]:
        eventually(partial(is_ready, pool, node, name), f"guest {name} of {node}")


def is_ready(pool: LabPool, node: str, vm: str) -> bool:
    """Whether a guest has reported on its serial console."""
    return any("ppn-guest ready" in line for line in pool.serial(node, vm))


def test_kvm_is_judged_with_a_reason(pool: LabPool) -> None:
    """HOST-09: a container has no /dev/kvm, and says so."""
    kvm = pool.state("server")["kvm"]
    assert kvm["usable"] is False
    assert "/dev/kvm" in kvm["reason"]


def test_weights_are_recorded_where_they_cannot_be_enforced(pool: LabPool) -> None:
    """CPU-01: no cpu controller in a container; the ledger's weight stands with the reason."""
    weight = pool.vms("server")["web"]["weight"]
    assert weight["wanted"] == 300
    assert weight["enforced"] is False
    assert weight["reason"]


def test_balloon_by_hand(pool: LabPool) -> None:
    """BAL-05, BAL-10: the guest's memory falls, and never below its minimum."""
    before = pool.vms("server")["web"]["memory"]["current_mib"]
    assert before == 256

    def inflated() -> bool:
        return bool(pool.vms("server")["web"]["memory"]["current_mib"] == 160)

    try:
        pool.run("server", "ppn host balloon web 160")
        eventually(inflated, "the balloon is inflated")
        refused = pool.node("server").run("ppn host balloon web 64")
        assert refused.rc == 3
        assert "128" in refused.stderr
    finally:
        pool.run("server", "ppn host balloon web 256")
