"""Whether CPU weights take effect on this node: cgroup v2 with the cpu controller, for libvirt."""

from __future__ import annotations

import re
from pathlib import Path

from ppn.host.model import Enforcement

SETTING = re.compile(r"^[ \t]*cgroup_controllers[ \t]*=[ \t]*\[([^\]]*)\]", re.MULTILINE)


def cpu_weight_support(sysfs: Path, qemu_conf: Path) -> Enforcement:
    """Whether libvirt can give VMs a cpu.weight here, with the reason when it cannot (CPU-01).

    Args:
        sysfs: the kernel's view of the hardware; cgroups are mounted at `fs/cgroup` in it.
        qemu_conf: libvirt's own settings, which can switch controllers off.
    """
    tree = sysfs / "fs/cgroup"
    try:
        controllers = (tree / "cgroup.controllers").read_text().split()
    except OSError:
        return _not_enforced(f"{tree} is no cgroup v2 tree")
    if "cpu" not in controllers:
        offered = " ".join(controllers) or "none"
        return _not_enforced(f"cgroup v2 has no cpu controller here (it has: {offered})")
    chosen = libvirt_controllers(qemu_conf)
    if chosen is not None and "cpu" not in chosen:
        return _not_enforced(f"cgroup_controllers in {qemu_conf} leaves out cpu")
    return Enforcement(enforced=True)


def libvirt_controllers(qemu_conf: Path) -> frozenset[str] | None:
    """The controllers libvirt is told to use; None when it takes all there are."""
    try:
        settings = SETTING.findall(qemu_conf.read_text())
    except OSError:
        return None
    return frozenset(re.findall(r'"([^"]*)"', settings[-1])) if settings else None


def _not_enforced(reason: str) -> Enforcement:
    return Enforcement(enforced=False, reason=reason)
