"""A root that is small but has all that an image needs: kernel, drivers, busybox, dmsetup."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from iso import initrd
from iso.enter import run_in

# Enough further files that an order of them, were it kept, would show.
SAMPLE = "usr/lib/python3.13/json"
SAMPLES = ("etc/alternatives", "etc/default", "usr/lib/systemd/system", SAMPLE)


def small_root(node_root: Path, target: Path) -> Path:
    """Copy the parts of a node root that an image needs, and a sample of the rest.

    Args:
        node_root: the whole root.
        target: folder to make.
    """
    node_root = node_root.resolve()
    kernel = initrd.kernel_of(node_root)
    dependencies = (kernel.modules / "modules.dep").read_text()
    modules = initrd.wanted(dependencies, (kernel.modules / "modules.builtin").read_text())
    listing = run_in(node_root, [initrd.LOADER, "--list", initrd.DMSETUP], timeout=60).stdout
    folder = kernel.modules.relative_to(node_root)
    wanted = [
        f"boot/{kernel.image.name}",
        "usr/bin/busybox",
        "usr/bin/env",
        *(path[1:] for path in (initrd.DMSETUP, initrd.LOADER, *initrd.libraries(listing))),
        *(str(folder / name) for name in ("modules.dep", "modules.alias", "modules.builtin")),
        *(str(folder / path) for path in modules),
    ]
    for link in ("bin", "lib", "lib64", "sbin"):
        target.mkdir(exist_ok=True, parents=True)
        os.symlink(f"usr/{link}", target / link)
    for empty in ("dev", "mnt", "proc", "run", "sys", "tmp"):
        (target / empty).mkdir()
    for path in wanted:
        source = node_root / path
        place = target / source.parent.resolve().relative_to(node_root) / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source.resolve(), place)
    for sample in SAMPLES:
        shutil.copytree(node_root / sample, target / sample, symlinks=True, dirs_exist_ok=True)
    (target / "etc/one-name").write_text("a file with two names\n")
    os.link(target / "etc/one-name", target / "etc/other-name")
    (target / "tmp").chmod(0o1777)
    return target
