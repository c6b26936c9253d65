"""What the installer does not do: it says why, for every disk, and writes to none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.firmware import Bus, Drive
from lab.medium import Medium, write_site
from ppn import sshsig
from ppn.installer.signature import NAMESPACE
from tests.iso.machine import booted
from tests.iso.medium import raid_member, sparse, with_file_system

REFUSED = r"ppn-installer: REFUSED: "
UNTOUCHED = "ppn-installer: nothing was written"
SECONDS = 1500
LARGE, SMALL = 10 * 1024, 2 * 1024
# Each case is a boot of a minute: the first of each kind in every run, all of them when asked for.
ROUNDS = int(os.environ.get("PPN_ISO_ROUNDS", "1"))


@dataclass(frozen=True)
class Case:
    """A machine that must not be installed.

    Args:
        name: what is wrong with it.
        disks: how each of its disks is made, by serial number.
        code: of the refusal.
        reasons: what is said of each disk.
        stick: whether the image is on a stick, not on a CD.
        bus: how the disks are attached.
    """

    name: str
    disks: Mapping[str, Callable[[Path], Path]]
    code: str
    reasons: Mapping[str, str]
    stick: bool = False
    bus: Bus = Bus.VIRTIO


def blank(path: Path) -> Path:
    """A disk that was never used."""
    return sparse(path, LARGE)


def small(path: Path) -> Path:
    """A disk that no node fits on."""
    return sparse(path, SMALL)


def photos(path: Path) -> Path:
    """A disk with somebody's file system."""
    return with_file_system(path, LARGE)


def raid(path: Path) -> Path:
    """A disk that is half of somebody's mirror."""
    return raid_member(path, LARGE)


def wiped(path: Path) -> Path:
    """A disk whose headers are gone, and whose data is not."""
    sparse(path, LARGE)
    with path.open("r+b") as file:
        file.seek(700_000)
        file.write(b"somebody's data")
    return path


CASES = (
    Case(
        "many disks",
        {"PHOTOS": photos, "RAID": raid, "SMALL": small},
        "disk_ambiguous",
        {
            "PHOTOS": "not touched: holds ext4",
            "RAID": "not touched: holds linux_raid_member",
            "SMALL": "not meant: smaller than",
            "STICK": "not meant: this system was started from it",
        },
        stick=True,
        bus=Bus.SATA,
    ),
    Case("a file system", {"PHOTOS": photos}, "disk_not_empty", {"PHOTOS": "holds ext4"}),
    Case(
        "two blank disks",
        {"ONE": blank, "TWO": blank},
        "disk_ambiguous",
        {"ONE": "empty", "TWO": "empty"},
    ),
    Case("a RAID member", {"RAID": raid}, "disk_not_empty", {"RAID": "linux_raid_member"}),
    Case("too small", {"SMALL": small}, "disk_missing", {"SMALL": "smaller than"}),
    Case("wiped headers", {"WIPED": wiped}, "disk_not_empty", {"WIPED": "is not zero"}),
    Case("the stick alone", {}, "disk_missing", {"STICK": "started from it"}, stick=True),
)


CODES = ("settings_altered", "settings_unsigned", "settings_signer_unknown")
SETTINGS = json.dumps(
    {
        "version": 1,
        "nodes": [{"name": "n1", "match": {"default": True}}],
        "ssh_ca_keys": [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}"],
    }
)


@pytest.mark.fault(
    "the image is booted on a machine with disks of somebody's, too small, or one too many",
    "it names every disk with the reason on the console, and not a byte is written",
)
@pytest.mark.parametrize("case", CASES[:ROUNDS], ids=lambda case: case.name)
def test_disks_that_are_not_ours_stay_as_they_are(
    medium: Medium, permissive: Path, tmp_path: Path, case: Case
) -> None:
    """ISO-01, ISO-04: Secure Boot is off here, so this shows that the image boots then too."""
    site = tmp_path / "site.iso"
    write_site(site, SETTINGS, sshsig.sign(medium.site_key, SETTINGS, NAMESPACE))
    stick = layer(tmp_path, "STICK", medium.image)
    layers = {
        serial: layer(tmp_path, serial, make(tmp_path / serial))
        for serial, make in case.disks.items()
    }
    drives = [
        Drive(stick, Bus.STICK, "qcow2", "STICK") if case.stick else Drive(medium.image, Bus.CD),
        Drive(site, Bus.CD),
        *(Drive(file, case.bus, "qcow2", serial) for serial, file in layers.items()),
    ]
    with booted(tmp_path, permissive, drives) as machine:
        machine.wait_for(REFUSED, seconds=SECONDS)
        machine.wait_for(UNTOUCHED, seconds=SECONDS)
        said = machine.text()
    assert f"({case.code})" in said, said
    for serial, reason in case.reasons.items():
        assert any(serial in line and reason in line for line in said.splitlines()), said
    for file in (stick, *layers.values()):
        assert written(file) == [], file


@pytest.mark.fault(
    "site settings were altered after they were signed, are not signed, or are somebody else's",
    "the installer refuses them with a code for each, and writes to no disk",
)
@pytest.mark.parametrize("code", CODES[:ROUNDS])
def test_settings_nobody_trusted_signed_are_refused(
    medium: Medium, enforcing: Path, tmp_path: Path, code: str
) -> None:
    """ISO-01: on a machine that has a disk which could be taken."""
    theirs = tmp_path / "somebody"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", theirs], check=True)
    sound = sshsig.sign(medium.site_key, SETTINGS, NAMESPACE)
    content, signature = {
        "settings_altered": (SETTINGS.replace('"n1"', '"n2"'), sound),
        "settings_unsigned": (SETTINGS, None),
        "settings_signer_unknown": (SETTINGS, sshsig.sign(theirs, SETTINGS, NAMESPACE)),
    }[code]
    site = tmp_path / "site.iso"
    write_site(site, content, signature)
    disk = layer(tmp_path, "disk", blank(tmp_path / "blank"))
    drives = [
        Drive(medium.image, Bus.CD),
        Drive(site, Bus.STICK, writable=False),
        Drive(disk, Bus.NVME, "qcow2"),
    ]
    with booted(tmp_path, enforcing, drives) as machine:
        machine.wait_for(REFUSED, seconds=SECONDS)
        machine.wait_for(UNTOUCHED, seconds=SECONDS)
        assert f"({code})" in machine.text(), machine.tail()
    assert written(disk) == []


def layer(folder: Path, name: str, base: Path) -> Path:
    """A disk over another file, which takes every write."""
    path = folder / f"{name}.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base.resolve())]
    subprocess.run([*words, str(path)], check=True, timeout=60)
    return path


def written(layer: Path) -> Sequence[int]:
    """Where anything was written to a disk: offsets in bytes."""
    done = subprocess.run(
        ["qemu-img", "map", "--output=json", "-f", "qcow2", str(layer)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return [part["start"] for part in json.loads(done.stdout) if part["depth"] == 0]
