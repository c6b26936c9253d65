"""Kernel modules an initial RAM disk must load, with what they depend on, in loading order."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

from ppn.errors import PpnError

UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".ko": bytes,
}


class ModuleMissing(PpnError):
    """A kernel has neither a module of this name nor the code built in."""

    code = "module_missing"


def module_name(path: str) -> str:
    """The kernel's name of a module file: `a/virtio-blk.ko.xz` is `virtio_blk`."""
    return path.rsplit("/", 1)[-1].split(".", 1)[0].replace("-", "_")


def load_order(dependencies: str, built_in: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Module files to load so that each finds its dependencies loaded.

    Args:
        dependencies: text of the kernel's `modules.dep`.
        built_in: text of the kernel's `modules.builtin`.
        wanted: names of the modules asked for.

    Returns:
        Paths relative to the kernel's module folder, dependencies first, none twice.

    Raises:
        ModuleMissing: a wanted module is neither loadable nor built in.
    """
    needs = dict(line.split(":", 1) for line in dependencies.splitlines() if ":" in line)
    by_name = {module_name(path): path for path in needs}
    inside = {module_name(path) for path in built_in.split()}
    order: dict[str, None] = {}

    def add(path: str) -> None:
        if path in order:
            return
        for need in needs[path].split():
            add(need)
        order[path] = None

    for name in wanted:
        if name in by_name:
            add(by_name[name])
        elif name not in inside:
            raise ModuleMissing(
                f"the kernel has no module {name}",
                hint="install a kernel with virtio drivers, such as Debian's cloud kernel",
            )
    return tuple(order)


def read_modules(folder: Path, wanted: Sequence[str]) -> list[tuple[str, bytes]]:
    """The unpacked modules of a kernel in loading order, as (file name, content).

    Args:
        folder: `lib/modules/VERSION` of the kernel.
        wanted: names of the modules asked for.

    Raises:
        ModuleMissing: a wanted module is absent, or packed in a way this cannot read.
        OSError: the folder is not a kernel's module folder.
    """
    dependencies = (folder / "modules.dep").read_text()
    built_in = (folder / "modules.builtin").read_text()
    found = []
    for path in load_order(dependencies, built_in, wanted):
        suffix = Path(path).suffix
        if suffix not in UNPACKERS:
            raise ModuleMissing(f"module {path} is packed as {suffix}, which cannot be unpacked")
        content = UNPACKERS[suffix]((folder / path).read_bytes())
        found.append((f"{module_name(path)}.ko", content))
    return found
