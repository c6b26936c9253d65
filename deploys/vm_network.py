"""The network of a hypervisor's VMs: what makes it at each boot."""

from __future__ import annotations

from collections.abc import Mapping

from deploys.units import unit_file
from operations.files import File
from operations.systemd import Unit

UNIT = "ppn-vm-network.service"


def network_unit(settings: str, installed: Mapping[str, File]) -> tuple[dict[str, File], Unit]:
    """The unit's file, and what it should be.

    Args:
        settings: path of the node's settings; a change of them makes the network anew, under the
            VMs that run.
        installed: the marker of the ppn software, whose rules these are.
    """
    return unit_file(UNIT), Unit(UNIT, restart_after=(settings, *installed))
