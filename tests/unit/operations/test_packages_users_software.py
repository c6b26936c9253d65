"""Packages, users and ppn's own software: change, no change, unreadable."""

from __future__ import annotations

from facts.packages import Installed
from facts.software import InstalledSoftware
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


def test_software_is_uploaded_then_installed() -> None:
    commands, _ = yielded(software.installed, {InstalledSoftware: ""}, archive="w.tar", digest="d1")
    assert [type(command).__name__ for command in commands] == [
        "StringCommand",
        "FileUploadCommand",
        "StringCommand",
    ]


def test_software_is_current() -> None:
    commands, _ = yielded(
        software.installed, {InstalledSoftware: "d1"}, archive="w.tar", digest="d1"
    )
    assert commands == []


def test_unreadable_software() -> None:
    commands, _ = yielded(
        software.installed, {InstalledSoftware: None}, archive="w.tar", digest="d1"
    )
    assert "which build of ppn" in refusal(commands)
