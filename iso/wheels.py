"""Which wheels a node of Debian 13 takes of those that `uv.lock` knows."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from deploys.wheelhouse import CHECKOUT, PLATFORMS, PYTHON_OF_DEBIAN
from iso.archive import RELEASE
from iso.lock import LockUnusable, Wheel
from ppn.run import run

PYTHON = PYTHON_OF_DEBIAN[RELEASE]
EXPORT_SECONDS = 120
# Older names of the oldest platform; pip takes them for it too.
ALSO = {
    "manylinux2014_x86_64": ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
}


def node_wheels() -> tuple[Wheel, ...]:
    """The wheels of everything that ppn needs on a node.

    Raises:
        CommandFailed: uv is missing, or its lock is not up to date.
        LockUnusable: a package has no wheel for a node.
    """
    uv = CHECKOUT / ".tools" / "uv" / "bin" / "uv"
    exported = run(
        [uv, "export", "-q", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes"],
        timeout=EXPORT_SECONDS,
        cwd=CHECKOUT,
    ).stdout
    return chosen((CHECKOUT / "uv.lock").read_text(encoding="utf-8"), exported)


def chosen(uv_lock: str, exported: str) -> tuple[Wheel, ...]:
    """The wheels for a node, one for each package.

    Args:
        uv_lock: text of `uv.lock`.
        exported: requirements that `uv export` made of it, one to a line.

    Raises:
        LockUnusable: a package has no wheel for a node.
    """
    packages = {
        (one["name"], one["version"]): one.get("wheels", [])
        for one in tomllib.loads(uv_lock)["package"]
        if "version" in one
    }
    order = {tag: place for place, tag in enumerate(tags())}
    return tuple(sorted(best(name, version, packages, order) for name, version in needed(exported)))


def needed(exported: str) -> Iterator[tuple[str, str]]:
    """Name and version of what a node needs."""
    environment = node_environment()
    for line in exported.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate(environment):
            (specifier,) = one.specifier
            yield canonicalize_name(one.name), specifier.version


def best(
    name: str,
    version: str,
    packages: Mapping[tuple[str, str], list[dict[str, Any]]],
    order: Mapping[Tag, int],
) -> Wheel:
    """The wheel of a package that suits a node best.

    Raises:
        LockUnusable: there is none.
    """
    candidates = []
    for entry in packages.get((name, version), []):
        file = Path(entry["url"]).name
        places = [order[tag] for tag in parse_wheel_filename(file)[3] if tag in order]
        if places:
            candidates.append((min(places), file, entry["hash"].removeprefix("sha256:")))
    if not candidates:
        raise LockUnusable(
            f"{name} {version} has no wheel for Python {PYTHON} on x86-64",
            hint="choose a version that has one: nodes compile nothing",
        )
    _, file, sha256 = min(candidates)
    return Wheel(file, sha256)


def tags() -> Iterator[Tag]:
    """The kinds of wheel that a node takes, the best first, as pip is told them."""
    version = tuple(int(part) for part in PYTHON.split("."))
    platforms = [one for name in PLATFORMS for one in ALSO.get(name, (name,))]
    yield from cpython_tags(version, platforms=platforms)
    yield from compatible_tags(version, f"cp{PYTHON.replace('.', '')}", platforms)


def node_environment() -> dict[str, str]:
    """What markers of requirements are judged by."""
    found = {name: str(value) for name, value in default_environment().items()}
    return found | {
        "implementation_name": "cpython",
        "implementation_version": f"{PYTHON}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
