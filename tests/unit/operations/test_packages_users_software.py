"""Packages, users and ppn's own software: change, no change, unreadable."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FileUploadCommand

from facts.packages import Installed
from facts.software import InstalledSoftware, Software
from facts.users import KnownUsers
from operations import packages, software, users
from tests.unit.operations.yielded import refusal, texts, yielded


def test_only_missing_packages_are_installed() -> None:
    commands, _ = yielded(
        packages.installed, {Installed: {"nftables": "1.1"}}, packages=["nftables", "qemu-utils"]
    )
    update, install = texts(commands)
    assert update.endswith(" update")
    assert install.endswith(" install -- qemu-utils")


def test_no_package_is_missing() -> None:
    commands, _ = yielded(
        packages.installed, {Installed: {"nftables": "1.1"}}, packages=["nftables"]
    )
    assert commands == []


def test_unreadable_package_database() -> None:
    commands, _ = yielded(packages.installed, {Installed: None}, packages=["nftables"])
    assert "cannot read the package database" in refusal(commands)


def test_missing_user_is_made_without_shell() -> None:
    commands, _ = yielded(users.system, {KnownUsers: frozenset({"a"})}, users=["a", "b"])
    (text,) = texts(commands)
    assert "--shell /usr/sbin/nologin -- b" in text


def test_users_exist() -> None:
    commands, _ = yielded(users.system, {KnownUsers: frozenset({"a"})}, users=["a"])
    assert commands == []


def test_unreadable_users() -> None:
    commands, _ = yielded(users.system, {KnownUsers: None}, users=["a"])
    assert "cannot read the user database" in refusal(commands)


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, str]:
    """What the operation is given: 3 MiB of packages, a little of our own."""
    sizes = {"archive": 1000, "dependencies": 3 * 2**20}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(gzip.compress(b"x" * size))
    paths = {name: str(tmp_path / name) for name in sizes}
    return {**paths, "digest": "r1", "dependencies_digest": "d1"}


def uploads(commands: list[Any]) -> list[str]:
    """Where the commands' uploads go."""
    return [command.dest for command in commands if isinstance(command, FileUploadCommand)]


def test_software_is_uploaded_then_installed(archives: dict[str, str]) -> None:
    actual = Software("", frozenset(), 100)
    commands, _ = yielded(software.installed, {InstalledSoftware: actual}, **archives)
    assert uploads(commands) == ["/opt/ppn/dependencies-d1.tar.gz", "/opt/ppn/venv-r1.tar.gz"]
    assert texts(commands)[-1].endswith(" ppn-install /opt/ppn d1 r1 /usr/local/bin/ppn")


def test_packages_that_are_there_are_not_sent_again(archives: dict[str, str]) -> None:
    """A new build of ppn, and a node whose image came with the packages."""
    actual = Software("r0", frozenset({"d0", "d1"}), 100)
    commands, _ = yielded(software.installed, {InstalledSoftware: actual}, **archives)
    assert uploads(commands) == ["/opt/ppn/venv-r1.tar.gz"]


def test_software_is_current(archives: dict[str, str]) -> None:
    actual = Software("r1", frozenset({"d1"}), 0)
    commands, _ = yielded(software.installed, {InstalledSoftware: actual}, **archives)
    assert commands == []


def test_a_build_whose_packages_are_gone_is_mended(archives: dict[str, str]) -> None:
    actual = Software("r1", frozenset(), 100)
    commands, _ = yielded(software.installed, {InstalledSoftware: actual}, **archives)
    assert uploads(commands) == ["/opt/ppn/dependencies-d1.tar.gz", "/opt/ppn/venv-r1.tar.gz"]


def test_a_full_disk_is_refused_before_anything_is_sent(archives: dict[str, str]) -> None:
    actual = Software("r0", frozenset(), 7)
    commands, _ = yielded(software.installed, {InstalledSoftware: actual}, **archives)
    assert "ppn needs 8 MiB in /opt/ppn, free are 7 MiB" in refusal(commands)


def test_unreadable_software(archives: dict[str, str]) -> None:
    commands, _ = yielded(software.installed, {InstalledSoftware: None}, **archives)
    assert "which build of ppn" in refusal(commands)
