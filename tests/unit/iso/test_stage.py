"""Where the inputs of a build come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploys import wheelhouse
from iso import software, squash, stage
from iso.cache import Cache
from iso.enter import ENVIRONMENT
from iso.errors import IsoError
from iso.source import Source
from iso.times import Times


def test_ppn_is_laid_in_without_this_machine_s_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO-02: TAR_OPTIONS, LD_PRELOAD and the like would be in the image."""
    monkeypatch.setenv("TAR_OPTIONS", "--mode=0777")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # In place of the program that only root may start.
    chroot = tmp_path / "chroot"
    chroot.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
    chroot.chmod(0o755)
    monkeypatch.setattr(software, "ENVIRONMENT", ENVIRONMENT | {"PATH": os.environ["PATH"]})
    software.install(tmp_path, "0123")
    found = (tmp_path / "environment").read_text().splitlines()
    assert {line.split("=")[0] for line in found} <= {*ENVIRONMENT, "PWD", "_", "SHLVL", "OLDPWD"}


def test_a_root_that_is_there_is_packed_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO-02: it has the packages already, whether or not this machine still has their archive."""

    def fetched(_: str) -> Path:
        raise AssertionError("the packages were to be fetched")

    def pack(root: Path, target: Path, **_: object) -> None:
        target.write_bytes((root / "etc/motd").read_bytes())

    monkeypatch.setenv("PPN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wheelhouse, "fetched", fetched)
    monkeypatch.setattr(squash, "pack", pack)
    monkeypatch.setattr(stage, "put_release", lambda *_: None)
    root, tools = tmp_path / "node-1/root", tmp_path / "tools-1/root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/motd").write_bytes(b"packed")
    source = Source("0.1.0", "c0ffee", 1)
    cache = Cache(tmp_path / "cache")
    left = cache.folder / ".packing-killed/root"
    left.mkdir(parents=True)
    packed = stage.packed_root(root, source, cache, tools=tools, fresh=False)
    assert packed.read_bytes() == b"packed"
    # What a killed build left is gone; what is used again is not the next to go.
    assert not left.parent.exists()
    os.utime(packed, (1, 1))
    assert stage.packed_root(root, source, cache, tools=tools, fresh=False) == packed
    assert packed.stat().st_mtime > 1


@pytest.mark.fault("the checkout is changed while its image is built", "refused, nothing is made")
def test_an_image_is_of_one_state_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO-02: a `git pull` meanwhile, and it would name what it is not made of."""
    commits = ["c0ffee", "c0ffee", "c0ffee", "decade"]
    monkeypatch.setattr(stage, "source_of", lambda: Source("0.1.0", commits.pop(0), 1))
    monkeypatch.setattr(stage, "need_root", lambda _: None)
    for name in ("tools_tree", "node_root", "packed_root"):
        monkeypatch.setattr(stage, name, lambda *_, **__: tmp_path)

    def inputs() -> Source:
        return stage.inputs_from_lock(output=tmp_path, keys=None, site=None, times=Times()).source

    assert inputs().commit == "c0ffee"
    with pytest.raises(IsoError) as refused:
        inputs()
    assert refused.value.code == "checkout_changed"
