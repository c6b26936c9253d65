"""What the installer does not do: it says why, for every disk, and writes to none.

One machine for all of it: what is plugged into it changes, and it is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab_machines.disks import written
from tests.lab_machines.pluggable import PluggableMachine


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


@pytest.fixture(autouse=True)
def standing() -> None:
    """There is no pool yet, and none is needed."""


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
