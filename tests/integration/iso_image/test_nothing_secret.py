"""The image that everyone may download holds nothing that only one machine may have."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from iso.enter import run_in
from iso.stage import inputs_from_lock
from iso.times import Times
from tests.integration.iso_image.conftest import Made

PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{16}")
# Where a machine or a person leaves what is theirs.
READ = ("etc", "var", "root", "home", "opt", "srv", "usr/local")
NEVER = (
    "*/.ssh/*",
    "*/.*_history",
    "*/.netrc",
    "*/.git-credentials",
    "*/__pycache__/*.tmp",
    "etc/hostname",
    "etc/ssh/ssh_host_*",
    "etc/ppn/*",
    "etc/wireguard/*",
    "var/lib/dbus/machine-id",
    "var/lib/ppn*",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/log/*.log",
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The names of all files of the whole image's root, and those folders that can hold secrets."""
    folder = tmp_path_factory.mktemp("root")
    inputs = inputs_from_lock(output=folder / "unsigned", keys=None, site=None, times=Times())
    binds = {inputs.packed: "/mnt/root.squashfs", folder: "/mnt/out"}
    listed = ["unsquashfs", "-l", "-d", "", "/mnt/root.squashfs"]
    names = run_in(inputs.tools, listed, binds=binds, timeout=120).stdout.splitlines()
    taken = ["unsquashfs", "-q", "-n", "-f", "-d", "/mnt/out/root", "/mnt/root.squashfs", *READ]
    run_in(inputs.tools, taken, binds=binds, timeout=300)
    return [name.strip("/") for name in names if name.startswith("/")], folder / "root"


def test_no_file_is_of_one_machine(unpacked: tuple[list[str], Path]) -> None:
    """ISO-01: no host key, no identity, no random seed, by the names of all files."""
    names, _ = unpacked
    assert "usr/bin/bash" in names and "usr/local/bin/ppn" in names
    found = [name for name in names for bad in NEVER if fnmatch.fnmatch(name, bad)]
    assert found == []


def test_the_machine_id_is_made_at_boot(unpacked: tuple[list[str], Path]) -> None:
    assert (unpacked[1] / "etc/machine-id").read_bytes() == b""


def test_nobody_has_a_password(unpacked: tuple[list[str], Path]) -> None:
    lines = (unpacked[1] / "etc/shadow").read_text().splitlines()
    assert {line.split(":")[1] for line in lines} <= {"*", "!", "!*"}


def test_no_file_holds_a_private_key(unpacked: tuple[list[str], Path], made: Made) -> None:
    """The root, the medium, and the boot file with its initial RAM disk not yet compressed."""
    inside = [path for path in unpacked[1].rglob("*") if path.is_file() and not path.is_symlink()]
    on_medium = [made.image, *made.unsigned.files().values()]
    assert len(inside) > 1000
    assert [str(path) for path in inside + on_medium if PRIVATE.search(path.read_bytes())] == []
    # Those who signed have theirs, which shows that the pattern would find them.
    assert PRIVATE.search(made.keys.key("db").read_bytes())
    assert PRIVATE.search(made.keys.signing_key.read_bytes())
