"""Small locks for tests."""

from __future__ import annotations

import hashlib

from iso.lock import Archive, Lock, Package, Tree, Wheel


def sha256(text: str) -> str:
    """A hash that stands for some content."""
    return hashlib.sha256(text.encode()).hexdigest()


def package(name: str, version: str = "1", *, trees: tuple[str, ...] = ("node",)) -> Package:
    """A package of Debian's archive."""
    path = f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
    return Package(name, version, "amd64", "debian", path, 1000, sha256(name + version), trees)


LOCK = Lock(
    archives=(
        Archive("debian", ("trixie", "trixie-updates"), "20261121T081500Z"),
        Archive("debian-security", ("trixie-security",), "20261121T110000Z"),
    ),
    trees=(Tree("node", ("bash",)), Tree("tools", ("xorriso",))),
    packages=(
        package("bash"),
        package("libc6", trees=("node", "tools")),
        package("xorriso", trees=("tools",)),
    ),
    wheels=(Wheel("anyio-4.9-py3-none-any.whl", sha256("anyio")),),
)
