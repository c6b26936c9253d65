"""What the installer does not do: it says why, for every disk, and writes to none.

One machine for all of it: what is plugged into it changes, and it is looked at again.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.firmware import Bus, Drive
from lab.medium import Medium, write_site
from ppn import sshsig
from ppn.installer.signature import NAMESPACE
from tests.iso.conftest import memory
from tests.iso.machine import booted
from tests.iso.medium import raid_member, sparse, with_file_system
from tests.iso.pluggable import PluggableMachine, pluggable_words
from tests.lab.pool import eventually

LARGE, SMALL = 10 * 1024, 2 * 1024


def blank(path: Path) -> Path:
    """A disk that was never used."""
    return sparse(path, LARGE)


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


MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "ONE": blank,
    "TWO": blank,
    "PHOTOS": photos,
    "RAID": raid,
    "WIPED": wiped,
}
SETTINGS = json.dumps(
    {
        "version": 1,
        "nodes": [{"name": "n1", "match": {"default": True}}],
        "ssh_ca_keys": [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}"],
    }
)


@dataclass(frozen=True)
class Case:
    """Disks on which nothing must be installed.

    Args:
        code: of the refusal.
        reasons: what is said of each disk that is plugged in.
    """

    code: str
    reasons: Mapping[str, str]


CASES = {
    "two blank disks": Case("disk_ambiguous", {"ONE": "empty", "TWO": "empty"}),
    "a file system": Case("disk_not_empty", {"PHOTOS": "not touched: holds ext4"}),
    "a RAID member": Case("disk_not_empty", {"RAID": "not touched: holds linux_raid_member"}),
    "wiped headers": Case("disk_not_empty", {"WIPED": "is not zero"}),
    "many disks": Case(
        "disk_ambiguous",
        {"PHOTOS": "not touched: holds ext4", "RAID": "not touched: holds linux_raid_member"},
    ),
    "none": Case("disk_missing", {}),
}
# These are in the machine all the time.
ALWAYS = {"SMALL": "not meant: smaller than", "STICK": "not meant: this system was started from it"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is plugged in."""
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def layers(medium: Medium, folder: Path) -> dict[str, Path]:
    """A layer over each disk, which takes every write, by serial number."""
    bases = {serial: make(folder / serial) for serial, make in MAKERS.items()}
    bases |= {"SMALL": sparse(folder / "SMALL", SMALL), "STICK": medium.image}
    return {serial: layer(folder, serial, base) for serial, base in bases.items()}


@pytest.fixture(scope="module")
def sites(medium: Medium, folder: Path) -> dict[str, Path]:
    """Media with site settings, by the code they are refused with; those of `sound` are not."""
    theirs = folder / "somebody"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", theirs], check=True)
    sound = sshsig.sign(medium.site_key, SETTINGS, NAMESPACE)
    contents = {
        "sound": (SETTINGS, sound),
        "settings_altered": (SETTINGS.replace('"n1"', '"n2"'), sound),
        "settings_unsigned": (SETTINGS, None),
        "settings_signer_unknown": (SETTINGS, sshsig.sign(theirs, SETTINGS, NAMESPACE)),
    }
    for name, (settings, signature) in contents.items():
        write_site(folder / f"{name}.iso", settings, signature)
    return {name: folder / f"{name}.iso" for name in contents}


@pytest.fixture(scope="module")
def machine(medium: Medium, folder: Path, layers: dict[str, Path]) -> Iterator[PluggableMachine]:
    """A machine that starts with what is first plugged into it."""
    firmware = memory(medium, folder, enforced=False)
    drives = [
        Drive(layers["STICK"], Bus.STICK, "qcow2", "STICK"),
        Drive(layers["SMALL"], Bus.SATA, "qcow2", "SMALL"),
    ]
    socket = folder / "control"
    with booted(folder, firmware, drives, more=pluggable_words(socket)) as running:
        eventually(socket.exists, "QEMU listens")
        yield PluggableMachine(running, socket, layers)


@pytest.fixture(autouse=True)
def untouched(layers: dict[str, Path]) -> Iterator[None]:
    """Whatever is plugged in: not a byte is written."""
    yield
    assert [serial for serial, file in layers.items() if written(file)] == []


@pytest.mark.fault(
    "site settings were altered after they were signed, are not signed, or are somebody else's",
    "the installer refuses them with a code for each, and writes to no disk",
)
@pytest.mark.parametrize(
    "code", ["settings_altered", "settings_unsigned", "settings_signer_unknown"]
)
def test_settings_nobody_trusted_signed_are_refused(
    machine: PluggableMachine, sites: dict[str, Path], code: str
) -> None:
    """ISO-01: on a machine that has a disk which could be taken."""
    said = machine.refusal(sites[code], frozenset({"ONE"}))
    assert f"({code})" in said, said


@pytest.mark.fault(
    "the image is booted on a machine with disks of somebody's, too small, or one too many",
    "it names every disk with the reason on the console, and not a byte is written",
)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_disks_that_are_not_ours_stay_as_they_are(
    machine: PluggableMachine, sites: dict[str, Path], case: Case
) -> None:
    """ISO-01, ISO-04: Secure Boot is off here, so this shows that the image boots then too."""
    said = machine.refusal(sites["sound"], frozenset(case.reasons))
    assert f"({case.code})" in said, said
    for serial, reason in {**case.reasons, **ALWAYS}.items():
        assert any(serial in line and reason in line for line in said.splitlines()), said


def layer(folder: Path, name: str, base: Path) -> Path:
    """A disk over another file, which takes every write."""
    path = folder / f"{name}.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base.resolve())]
    subprocess.run([*words, str(path)], check=True, timeout=60)
    return path


def written(layer: Path) -> Sequence[int]:
    """Where anything was written to a disk: offsets in bytes."""
    done = subprocess.run(
        # The machine that has it is on.
        ["qemu-img", "map", "--force-share", "--output=json", "-f", "qcow2", str(layer)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return [part["start"] for part in json.loads(done.stdout) if part["depth"] == 0]
