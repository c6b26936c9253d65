"""Where a build's inputs come from: the lock, and the trees that are made of it."""

from __future__ import annotations

import os
from pathlib import Path

from iso import sbom
from iso.build import Inputs
from iso.source import CHECKOUT, source_of
from iso.times import Times
from lab.paths import cache_folder


def inputs_from_lock(*, output: Path, keys: Path | None, site: Path | None, times: Times) -> Inputs:
    """The inputs that this checkout's lock makes.

    Args:
        output: folder for the parts.
        keys: the operator's public keys.
        site: signed site settings.
        times: takes the time of each step.
    """
    with times.step("root", "Make the node root"):
        roots = sorted(cache_folder().glob("node-*/root"), key=lambda path: path.stat().st_mtime)
    return Inputs(
        root=roots[-1],
        tools=tools_from_lock(),
        lock=CHECKOUT / "iso" / "node-packages.txt",
        source=source_of(),
        components=installed(roots[-1]),
        output=output,
        keys=keys,
        site=site,
    )


def installed(root: Path) -> list[sbom.Component]:
    """The Debian packages of a root."""
    found = []
    for block in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line[1:])
        if "Package" in fields:
            found.append(sbom.Component("deb", fields["Package"], fields["Version"], "", ""))
    return found


def tools_from_lock() -> Path:
    """The tools tree that this checkout's lock makes."""
    return Path(os.environ["PPN_ISO_TOOLS"])
