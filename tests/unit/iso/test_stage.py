"""Where the inputs of a build come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploys import wheelhouse
from iso import squash, stage
from iso.cache import Cache
from iso.source import Source


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
    packed = stage.packed_root(root, source, cache, tools=tools, fresh=False)
    assert packed.read_bytes() == b"packed"
    assert stage.packed_root(root, source, cache, tools=tools, fresh=False) == packed
