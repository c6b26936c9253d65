"""Which drivers the initial RAM disk has, and how it finds them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from iso import initrd
from iso.errors import IsoError
from lab.modules import ModuleMissing

NAMED = (*initrd.ALWAYS, *initrd.REQUIRED)
DEPENDENCIES = "".join(f"kernel/x/{name}.ko.xz:\n" for name in NAMED) + (
    "kernel/drivers/scsi/hpsa.ko.xz: kernel/drivers/scsi/sas.ko.xz\n"
    "kernel/drivers/scsi/sas.ko.xz:\n"
    "kernel/drivers/scsi/qla2xxx/qla2xxx.ko.xz:\n"
    "kernel/drivers/usb/storage/uas.ko.xz:\n"
    "kernel/drivers/net/e1000.ko.xz:\n"
)


def names(paths: tuple[str, ...]) -> list[str]:
    return [path.rsplit("/", 1)[1].split(".")[0] for path in paths]


def test_whatever_can_hold_a_medium_is_there_and_nothing_else() -> None:
    found = names(initrd.wanted(DEPENDENCIES, ""))
    assert {"hpsa", "sas", "uas", *NAMED} == set(found)
    assert found.index("sas") < found.index("hpsa")


def test_a_kernel_that_could_not_boot_is_refused() -> None:
    with pytest.raises(ModuleMissing, match="dm_verity"):
        initrd.wanted(DEPENDENCIES.replace("dm_verity", "other"), "")
    # Built in is as good.
    initrd.wanted(DEPENDENCIES.replace("dm_verity", "other"), "kernel/drivers/md/dm-verity.ko\n")


def test_modules_lie_in_one_folder_unpacked() -> None:
    paths = ("kernel/drivers/scsi/sas.ko.xz", "kernel/drivers/scsi/hpsa.ko.xz")
    assert initrd.dependency_file(DEPENDENCIES, paths) == "hpsa.ko: sas.ko\nsas.ko:\n"
    aliases = "# made by depmod\nalias pci:v1 hpsa\nalias pci:v2 e1000\nalias usb:v3 sas\n"
    assert initrd.alias_file(aliases, paths) == "alias pci:v1 hpsa\nalias usb:v3 sas\n"


def test_hash_instructions_are_used_where_the_kernel_has_them(tmp_path: Path) -> None:
    fast = "kernel/arch/x86/crypto/sha256-ssse3.ko"
    assert loaded_at_once(tmp_path / "fast", f"{DEPENDENCIES}{fast}:\n")[0] == "sha256_ssse3"
    assert loaded_at_once(tmp_path / "plain", DEPENDENCIES) == list(initrd.ALWAYS)


def loaded_at_once(root: Path, dependencies: str) -> list[str]:
    """What the first program is told to load, for a kernel of these modules."""
    kernel = initrd.Kernel(root, "6.12.1-amd64")
    for line in dependencies.replace(".ko.xz", ".ko").splitlines():
        path = kernel.modules / line.split(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (kernel.modules / "modules.dep").write_text(dependencies.replace(".ko.xz", ".ko"))
    for name in ("builtin", "alias"):
        (kernel.modules / f"modules.{name}").touch()
    (listed,) = [found for found in initrd.driver_members(kernel) if found.path == "modules"]
    return listed.content.decode().split()


def test_libraries_are_taken_from_what_the_loader_lists() -> None:
    listing = (
        "\tlinux-vdso.so.1 (0x00007f0)\n"
        "\tlibudev.so.1 => /lib/x86_64-linux-gnu/libudev.so.1 (0x00007f1)\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n"
    )
    assert initrd.libraries(listing) == (
        "/lib/x86_64-linux-gnu/libudev.so.1",
        "/lib64/ld-linux-x86-64.so.2",
    )


def test_a_root_has_one_kernel(tmp_path: Path) -> None:
    for version in ("6.12.1-amd64", "6.12.2-amd64"):
        (tmp_path / "usr/lib/modules" / version).mkdir(parents=True)
    with pytest.raises(IsoError, match=r"6\.12\.1-amd64, 6\.12\.2-amd64") as refused:
        initrd.kernel_of(tmp_path)
    assert refused.value.hint


def test_the_first_program_gives_no_shell_and_has_every_applet_it_calls() -> None:
    """ISO-01: what stands at a console may not be the operator."""
    text = initrd.INIT.read_text()
    code = [line.split("#", 1)[0] for line in text.splitlines()[1:]]
    words = {word for line in code for word in re.findall("[a-z_]+", line)}
    assert not words & {"sh", "ash", "setsid", "getty", "login", "cttyhack"}
    shellcheck = shutil.which("shellcheck")
    assert shellcheck is not None
    checked = subprocess.run([shellcheck, "-s", "dash", str(initrd.INIT)], timeout=60, check=False)
    assert checked.returncode == 0
    called = {"cat", "cp", "dd", "find", "grep", "losetup", "mkdir", "modprobe", "mount"}
    called |= {"poweroff", "readlink", "sleep", "sort", "switch_root", "umount", "xargs"}
    assert called <= words
    assert called <= set(initrd.APPLETS)


def test_trust_is_in_the_signed_part_or_nowhere() -> None:
    assert initrd.trust_members(None) == []
    (_, file) = initrd.trust_members(b"ppn ssh-ed25519 AAAA\n")
    assert file.path == "trust/allowed_signers"
