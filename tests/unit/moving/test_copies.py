"""What the copies of a VM's disks may take of the node it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.errors import Refusal
from ppn.host.disk import DiskInfo
from ppn.host.model import DiskPool
from ppn.host.moving import copies
from ppn.host.moving.copies import check_room
from ppn.host.paths import VmPaths
from tests.unit.moving.world import VM

# A disk of 1 GiB of which 100 MiB are written: its copy takes as much, and it may grow by the rest.
WRITTEN, GROWTH = 100, 924


@pytest.mark.parametrize(
    ("free", "others", "wanted"),
    [
        (WRITTEN + 1, 0, ""),
        (WRITTEN, 0, "disk_exhausted"),
        # What other disks may still grow by, also those of VMs that arrive, is not free.
        (5000, 5000 - WRITTEN - 1, ""),
        (5000, 5000 - WRITTEN, "disk_exhausted"),
    ],
)
def test_copies_take_no_room_that_is_promised_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, others: int, wanted: str
) -> None:
    """MIG-02: refused before the VM is stopped; its own disks do not grow meanwhile."""
    files = VmPaths(tmp_path)
    files.root_disk.touch()
    info = DiskInfo(virtual_mib=1024, allocated_mib=WRITTEN, base=None)
    monkeypatch.setattr(copies, "disk_info", lambda _: info)
    pool = DiskPool(total_mib=10_000, free_mib=free, promised_mib=others + GROWTH)
    if not wanted:
        check_room(VM, files, pool)
        return
    with pytest.raises(Refusal) as caught:
        check_room(VM, files, pool)
    assert caught.value.code == wanted and caught.value.free == WRITTEN
