"""Kernel modules in loading order."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from lab.modules import ModuleMissing, load_order, read_modules

DEPENDENCIES = """\
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/failover.ko.xz
kernel/net/failover.ko.xz:
kernel/drivers/block/virtio-blk.ko.xz:
"""
BUILT_IN = "kernel/drivers/virtio/virtio_pci.ko\n"


def test_dependencies_come_first() -> None:
    """A module is loaded after all that it needs, and nothing is loaded twice."""
    order = load_order(DEPENDENCIES, BUILT_IN, ["virtio_net", "net_failover"])
    assert order == (
        "kernel/net/failover.ko.xz",
        "kernel/drivers/net/net_failover.ko.xz",
        "kernel/drivers/net/virtio_net.ko.xz",
    )


def test_built_in_needs_no_loading() -> None:
    """Code inside the kernel is no module, and dashes mean underscores."""
    order = load_order(DEPENDENCIES, BUILT_IN, ["virtio_pci", "virtio_blk"])
    assert order == ("kernel/drivers/block/virtio-blk.ko.xz",)


def test_missing_module_is_named() -> None:
    """A kernel without a driver is refused before anything boots it."""
    with pytest.raises(ModuleMissing, match="virtio_gpu"):
        load_order(DEPENDENCIES, BUILT_IN, ["virtio_gpu"])


def test_packed_modules_are_unpacked(tmp_path: Path) -> None:
    """The RAM disk holds plain modules, since busybox loads no packed ones."""
    (tmp_path / "modules.dep").write_text("a/virtio_blk.ko.xz:\na/plain.ko:\na/odd.ko.lz4:\n")
    (tmp_path / "modules.builtin").write_text("")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/virtio_blk.ko.xz").write_bytes(lzma.compress(b"code"))
    (tmp_path / "a/plain.ko").write_bytes(b"plain")
    found = read_modules(tmp_path, ["virtio_blk", "plain"])
    assert found == [("virtio_blk.ko", b"code"), ("plain.ko", b"plain")]
    with pytest.raises(ModuleMissing, match="lz4"):
        read_modules(tmp_path, ["odd"])
