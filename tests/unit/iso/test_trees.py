"""How trees are named, built and brought into the one state that their packages have."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from iso import trees
from iso.cache import Cache
from iso.enter import inside
from iso.lock import LockUnusable
from iso.recipe import Recipe
from iso.root import customise, node_recipe
from iso.settle import LEFT_BEHIND, installed, settle
from ppn.errors import Refusal
from tests.unit.iso.locks import LOCK, package

STATUS = """\
Package: bash
Status: install ok installed
Version: 1

Package: gone
Status: deinstall ok config-files
Version: 2

Package: libc6
Status: install ok installed
Description: the library
 Version: of no importance
Version: 1
"""


def test_image_name_follows_its_inputs(tmp_path: Path) -> None:
    """ISO-02: another package, file, mode or unit makes another image; the same make the same."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_text("a")
    recipe = Recipe("node", ("bash",), tmp_path)
    first = recipe.digest(LOCK)
    assert recipe.digest(LOCK) == first
    others = {
        replace(recipe, packages=("dash",)).digest(LOCK),
        replace(recipe, name="y").digest(LOCK),
    }
    others.add(replace(recipe, disabled=("a*",)).digest(LOCK))
    others.add(replace(recipe, python="3.13").digest(LOCK))
    others.add(recipe.digest(replace(LOCK, packages=LOCK.packages[1:])))
    (tmp_path / "etc/motd").write_text("b")
    others.add(recipe.digest(LOCK))
    (tmp_path / "etc/motd").chmod(0o755)
    others.add(recipe.digest(LOCK))
    assert len(others | {first}) == 8


def test_image_has_no_identity(tmp_path: Path) -> None:
    """Host keys, machine id and the builder's name stay out of every image."""
    for path in ("etc/ssh/ssh_host_rsa_key", "etc/hostname", "etc/resolv.conf", "etc/machine-id"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("secret")
    (tmp_path / "var").mkdir()
    enabled = tmp_path / "etc/systemd/system/sockets.target.wants"
    enabled.mkdir(parents=True)
    (enabled / "libvirtd.socket").symlink_to("/usr/lib/systemd/system/libvirtd.socket")
    customise(tmp_path, replace(node_recipe(), python=None, initrd=False), 0)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert not {"etc/ssh/ssh_host_rsa_key", "etc/hostname", "etc/resolv.conf"} & left
    assert (tmp_path / "etc/machine-id").read_bytes() == b""
    assert not (enabled / "libvirtd.socket").is_symlink()
    assert (tmp_path / "usr/local/sbin/node-host-key").stat().st_mode & 0o777 == 0o755


def test_a_tree_holds_what_the_lock_names_and_nothing_else(tmp_path: Path) -> None:
    """ISO-02: the packages' own list is compared with the lock."""
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    assert installed(tmp_path) == {"bash 1", "libc6 1"}
    trees.check(tmp_path, LOCK.of("node"))
    with pytest.raises(trees.TreeWrong, match=r"2 packages.*bash 1, bash 2"):
        trees.check(tmp_path, [package("bash", "2"), package("libc6")])


def test_traces_of_the_build_go(tmp_path: Path) -> None:
    for pattern in LEFT_BEHIND:
        path = tmp_path / pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of this build")
    example = tmp_path / "usr/share/doc/apt/examples/debian.sources"
    example.parent.mkdir(parents=True)
    example.write_text("Types: deb\n")
    settle(tmp_path, LOCK.of("node"), ["bash"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "x" in path.name[-1:]]
    assert (tmp_path / "etc/apt/sources.list.d/debian.sources").read_text() == "Types: deb\n"
    assert not (tmp_path / "etc/passwd-").exists()
    automatic = (tmp_path / "var/lib/apt/extended_states").read_text()
    assert automatic == "Package: libc6\nArchitecture: amd64\nAuto-Installed: 1\n\n"


def test_a_stale_lock_builds_nothing(tmp_path: Path) -> None:
    with pytest.raises(LockUnusable, match="zsh"):
        trees.ensure(Recipe("node", ("bash", "zsh")), LOCK, Cache(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_only_root_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refusal, match="only root") as refused:
        trees.ensure(Recipe("node", ("bash",)), LOCK, Cache(tmp_path))
    assert refused.value.code == "not_root"


def test_a_full_disk_is_refused_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="wanted 1000000000, free") as refused:
        trees.need_space(tmp_path / "cache", 10**9, "the node tree")
    assert refused.value.code == "no_space"


def test_programs_of_a_tree_get_nothing_of_this_machine(tmp_path: Path) -> None:
    """ISO-02: no network, none of our variables, a name of its own."""
    argv = inside(tmp_path, ["true"], {tmp_path: "/work"}, {"SOURCE_DATE_EPOCH": "1"})
    assert {"--net", "--pid", "--mount", "--uts"} <= set(argv)
    start = argv.index(str(tmp_path))
    assert argv[start : start + 6] == [
        str(tmp_path),
        str(tmp_path),
        "/work",
        "--",
        "/usr/bin/env",
        "-i",
    ]
    assert "SOURCE_DATE_EPOCH=1" in argv
    assert argv[-1] == "true"
