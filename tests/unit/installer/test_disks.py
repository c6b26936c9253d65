"""Disks from what lsblk tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppn.errors import PpnError, Refusal
from ppn.installer.app import check_unchanged, settle
from ppn.installer.disks import (
    GIB,
    DisksUnreadable,
    Partition,
    disk_of,
    is_disk,
    looked_at,
    stable_path,
)
from ppn.installer.medium import disks_of, site_devices
from ppn.installer.stick import Target
from tests.unit.installer.samples import disk


def entry(**changes: Any) -> dict[str, Any]:
    """An entry as lsblk writes it."""
    return {
        "name": "sda",
        "path": "/dev/sda",
        "type": "disk",
        "size": 16 * GIB,
        "ro": False,
        "rm": False,
        "model": "Model A ",
        "serial": None,
        "tran": "sata",
        "fstype": None,
        "label": None,
        "pttype": None,
        "partuuid": None,
        "partlabel": None,
        "mountpoints": [None],
        **changes,
    }


RAID = entry(name="md0", type="raid1", mountpoints=["/srv"])
PART = entry(name="sda1", type="part", partuuid="u-1", fstype="ext4", label="home", children=[RAID])


def test_a_disk_with_what_is_on_it() -> None:
    disk = disk_of(entry(children=[PART]), "/dev/sda")
    assert (disk.model, disk.serial, disk.size) == ("Model A", "", 16 * GIB)
    assert disk.partitions == (Partition("sda1", "u-1", "", "ext4 'home'"),)
    assert disk.used_by == ("/srv", "raid1 md0")


def test_a_stick_is_shown_with_what_is_on_it() -> None:
    """Before its name is asked for: by its label a person knows it, with partitions or without."""
    photos = {"fstype": "ext4", "label": "photos"}
    bare = Target(disk_of(entry(rm=True, **photos), "/dev/sda"), "disk")
    assert bare.lines == ["sda 16.0 GiB Model A (sata, removable)", "  sda: ext4 'photos'"]
    parted = Target(
        disk_of(entry(children=[entry(name="sda1", type="part", **photos)]), ""), "disk"
    )
    assert parted.lines == ["sda 16.0 GiB Model A (sata, fixed)", "  sda1: ext4 'photos'"]


@pytest.mark.parametrize("changes", [{"rm": True}, {"tran": "usb"}])
def test_what_can_be_carried_away_is_removable(changes: dict[str, Any]) -> None:
    assert disk_of(entry(**changes), "/dev/sda").removable


def test_a_disks_own_words_steer_no_terminal() -> None:
    assert disk_of(entry(model="\x1b[2JA"), "/dev/sda").model == "[2JA"


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({}, True),
        ({"name": "nvme0n1"}, True),
        ({"name": "zram0"}, False),
        ({"name": "nbd0"}, False),
        ({"type": "rom", "name": "sr0"}, False),
        ({"type": "loop", "name": "loop0"}, False),
    ],
)
def test_only_disks_are_disks(changes: dict[str, Any], meant: bool) -> None:
    assert is_disk(entry(**changes)) is meant


@pytest.mark.parametrize("missing", ["size", "rm", "ro", "name"])
def test_a_damaged_entry_is_refused(missing: str) -> None:
    damaged = entry()
    del damaged[missing]
    with pytest.raises(DisksUnreadable):
        disk_of(damaged, "/dev/sda")


def test_a_stable_name_is_by_identity_before_place(tmp_path: Path) -> None:
    device = tmp_path / "sda"
    device.touch()
    assert stable_path(tmp_path, str(device)) == str(device)
    for kind in ("by-path", "by-id"):
        link = tmp_path / "disk" / kind / "name"
        link.parent.mkdir(parents=True)
        link.symlink_to(device)
        assert stable_path(tmp_path, str(device)) == str(link)


def test_the_second_medium_is_found_on_any_device_and_once() -> None:
    labelled = {"label": "PPN-SITE", "fstype": "iso9660"}
    stick = entry(
        name="sdb",
        path="/dev/sdb",
        **labelled,
        children=[entry(name="sdb1", path="/dev/sdb1", type="part", **labelled)],
    )
    partition = entry(name="sdc", children=[entry(name="sdc1", path="/dev/sdc1", **labelled)])
    other = entry(name="sdd", label="PPN-SITE", fstype="vfat")
    assert list(site_devices([entry(), stick, partition, other])) == [
        ("/dev/sdb", frozenset({"sdb"})),
        ("/dev/sdc1", frozenset({"sdc", "sdc1"})),
    ]


def test_a_mediums_disk_is_found_from_its_partition() -> None:
    listed = [entry(children=[PART]), entry(name="sdb")]
    assert disks_of(listed, frozenset({"md0"})) == {"sda"}
    assert disks_of(listed, frozenset({"sdb", "sr0"})) == {"sdb"}


def test_devices_that_do_not_come_to_rest_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive that answers late would be overlooked; udev gives up after a while."""
    program = tmp_path / "udevadm"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PpnError, match="take it out") as failed:
        settle()
    assert failed.value.code == "devices_busy"


def test_a_disk_that_is_gone_has_changed(tmp_path: Path) -> None:
    """ISO-04: pulled out between the choice and the first write; the console says so."""
    with pytest.raises(Refusal) as refused:
        check_unchanged(disk(path=str(tmp_path / "by-id")))
    assert refused.value.code == "disk_changed"


def test_a_disk_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A broken disk is told of, and does not end the installer."""
    found = looked_at(entry(path=str(tmp_path / "gone")))
    assert found.fault
    assert not found.blank
