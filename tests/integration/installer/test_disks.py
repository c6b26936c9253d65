"""Real devices with real contents: what is found on them, and what is taken."""

from __future__ import annotations

import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from ppn.errors import Refusal
from ppn.installer import mark as marks
from ppn.installer import plan, render, settings
from ppn.installer.app import check_unchanged
from ppn.installer.disks import GIB, Disk, list_devices, looked_at
from ppn.installer.execute import carry_out
from ppn.installer.mark import Mark, State
from ppn.installer.plan import Folders
from ppn.installer.policy import Choice, Wanted, choose
from tests.integration.installer.conftest import Attach

WANTED = Wanted("n", "a" * 64, "b" * 64)
MIB = 10 * 1024


def seen(device: Path) -> Disk:
    """The device as the installer sees a disk."""
    (entry,) = list_devices(device)
    return looked_at(entry)


def chosen(device: Path) -> Choice:
    """What becomes of a machine that has this disk alone."""
    return choose([seen(device)], settings.Disk(), frozenset(), WANTED)


def run(*words: str | Path) -> None:
    """A program that puts something onto a device."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)


def make_mark(**changes: object) -> Mark:
    """The mark of a complete installation of what is wanted."""
    values = {"node": "n", "image": WANTED.image, "settings": WANTED.settings, "seed": uuid4()}
    return Mark.model_validate({"state": State.COMPLETE, **values, **changes})


def at(device: Path, position: int, content: bytes) -> None:
    """Write bytes at a place of a device."""
    with device.open("r+b") as opened:
        opened.seek(position)
        opened.write(content)


def test_a_new_disk_is_taken(attach: Attach) -> None:
    """ISO-04: as it comes from the maker."""
    device = attach(MIB)
    choice = chosen(device)
    assert (choice.disk.path, choice.disk.size, choice.installed) == (str(device), 10 * GIB, False)


@pytest.mark.fault(
    "a disk with a foreign file system, swap, LVM, encryption, a partition table, or wiped headers",
    "the installer refuses with the reason; not a byte of the disk is changed",
)
@pytest.mark.parametrize(
    "what", ["ext4", "swap", "LVM2", "LUKS", "gpt", "wiped", "zeroed table", "a byte at the end"]
)
def test_what_somebody_may_miss_is_not_touched(attach: Attach, what: str) -> None:
    """ISO-04: refused with the reason."""
    device = attach(MIB)
    match what:
        case "ext4" | "wiped":
            run("mke2fs", "-q", "-F", "-t", "ext4", device, "64M")
        case "zeroed table":
            run("mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={1024**2}", device, "64M")
        case "swap":
            run("mkswap", device)
        case "LVM2":
            header = b"LABELONE" + (1).to_bytes(8, "little") + bytes(4)
            body = (32).to_bytes(4, "little") + b"LVM2 001" + b"a" * 32
            at(device, 512, header + body)
        case "LUKS":
            at(device, 0, b"LUKS\xba\xbe\x00\x02" + bytes(500))
        case "gpt":
            definitions(device)
        case _:
            at(device, 10 * GIB - 1, b"x")
    if what == "wiped":
        run("wipefs", "--all", device)
        assert seen(device).content == ""
    with pytest.raises(Refusal) as refused:
        chosen(device)
    assert refused.value.code == "disk_not_empty"


def definitions(device: Path) -> None:
    """Partitions of somebody's on a device."""
    run("systemd-repart", "--dry-run=no", "--empty=force", f"--seed={uuid4()}", device)


def test_a_used_disk_is_not_touched(attach: Attach, tmp_path: Path) -> None:
    """ISO-04: whatever is on it, when somebody has it mounted."""
    device = attach(MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", device, "64M")
    where = tmp_path / "mounted"
    where.mkdir()
    run("mount", device, where)
    try:
        with pytest.raises(Refusal, match=f"in use: {where}"):
            chosen(device)
    finally:
        run("umount", where)


def first_steps(device: Path, made: Mark, folder: Path) -> None:
    """Mark and partitions: all of an installation that this machine's kernel can do."""
    files: dict[str, render.File] = {}
    steps = plan.installation(seen(device), made, files, folder, "6", Folders(folder))[:3]
    last = plan.Step(steps[2].title, steps[2].actions[:1])
    carry_out((*steps[:2], last), device, lambda text: None)


def test_an_interrupted_installation_is_ours_and_starts_over(
    attach: Attach, tmp_path: Path
) -> None:
    """ISO-04: cut short after the mark, or after the partitions; the mark outlives both."""
    device = attach(MIB)
    made = make_mark()
    marks.write(device, made.model_copy(update={"state": State.UNFINISHED}))
    assert not chosen(device).installed
    first_steps(device, made, tmp_path)
    found = seen(device)
    assert found.table == "gpt"
    assert found.mark == made.model_copy(update={"state": State.UNFINISHED})
    assert not chosen(device).installed
    # Once more over what is there, as the next start of the medium does it.
    first_steps(device, made, tmp_path)
    marks.write(device, made)
    assert seen(device).mark == made


def test_a_disk_that_changes_after_it_was_chosen_is_not_written_to(attach: Attach) -> None:
    """ISO-04: the last look before the first write."""
    device = attach(MIB)
    disk = chosen(device).disk
    check_unchanged(disk)
    at(device, 0, b"x")
    with pytest.raises(Refusal) as refused:
        check_unchanged(disk)
    assert refused.value.code == "disk_changed"
