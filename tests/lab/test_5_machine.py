"""A node as a machine that boots the lab's own kernel, as `scripts/lab --vm` makes all of them."""

from __future__ import annotations

import os

from lab.process import recorded
from tests.lab.pool import LabPool


def test_a_machine_comes_and_goes() -> None:
    """HOST-10: with a kernel of its own, which has what a container's lacks, and no KVM."""
    pool = LabPool(f"kernel-{os.getpid()}")
    record = pool.paths.node("relay").process
    try:
        pool.lab("up", "--machine", "relay")
        machine = recorded(record)
        assert machine is not None
        assert pool.run("relay", "systemd-detect-virt") == "qemu"
        assert "wireguard" in pool.run("relay", "modprobe wireguard && lsmod")
        assert pool.run("relay", "test -e /dev/kvm || echo none") == "none"
        pool.lab("up")
        assert recorded(record) == machine
        pool.lab("down")
        assert recorded(record) is None
    finally:
        pool.lab("destroy")
