"""VMs between two nodes that come no further (HLT-06)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from ppn.host.model import IN_TRANSIT, VmView
from ppn.host.paths import Paths, VmPaths

# A controller calls back, or brings forward, what stands for minutes.
LATE_SECONDS = 3600.0


def stuck(paths: Paths, vms: Iterable[VmView], now: float) -> frozenset[str]:
    """VMs that have been between two nodes for an hour in which nothing of them was written.

    Args:
        paths: the node's files.
        vms: all of the node.
        now: seconds since 1970.
    """
    away = (vm.name for vm in vms if vm.phase in IN_TRANSIT)
    # What was written in hours to come was written under a clock that was ahead.
    return frozenset(vm for vm in away if abs(now - _touched(paths.vm(vm))) > LATE_SECONDS)


def _touched(files: VmPaths) -> float:
    """When a VM's sidecar or something of what is sent was written last, seconds since 1970."""
    found = [0.0]
    for path in (files.sidecar, files.moving, *files.moving.glob("*")):
        # It may take its place, or go, between the listing and this look.
        with suppress(FileNotFoundError):
            found.append(path.stat().st_mtime)
    return max(found)
