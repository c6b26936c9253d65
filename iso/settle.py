"""Takes out of a fresh tree what differs from build to build, and what only the build needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iso.lock import Package
from ppn.run import run

COMPILE_SECONDS = 600
# Copies of what stood there a moment before, locks, and caches that are made again.
LEFT_BEHIND = (
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "etc/.pwd.lock",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/0000*",
    "var/cache/apt/archives/*",
    "var/cache/debconf/*-old",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
)
SOURCES = "usr/share/doc/apt/examples/debian.sources"
PYTHON_FOLDERS = ("usr/lib/python3", "usr/lib/python3.*", "usr/share/python3")


def settle(root: Path, packages: Sequence[Package], asked: Sequence[str]) -> None:
    """Bring a tree into the one state that its packages have, however it was built.

    Args:
        root: the tree.
        packages: what is installed.
        asked: what was asked for; the other packages may go when nothing needs them any more.

    Raises:
        OSError: the tree cannot be changed.
        CommandFailed: its Python cannot compile what it has.
    """
    for pattern in LEFT_BEHIND:
        for path in root.glob(pattern):
            # apt makes its own folders again, for whichever user fetches.
            path.rmdir() if path.is_dir() else path.unlink()
    write_sources(root)
    automatic = sorted({one.name for one in packages} - set(asked) - {"apt"})
    states = root / "var/lib/apt/extended_states"
    states.parent.mkdir(parents=True, exist_ok=True)
    states.write_text("".join(state(name) for name in automatic))
    compile_python(root)


def write_sources(root: Path) -> None:
    """Let the tree's apt use Debian's archive, by the list that its own package brings."""
    example = root / SOURCES
    if example.is_file():
        (root / "etc/apt/sources.list.d/debian.sources").write_bytes(example.read_bytes())


def state(name: str) -> str:
    """What apt keeps about a package that came because another needs it."""
    return f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n\n"


def compile_python(root: Path) -> None:
    """Make bytecode that says nothing about when its source was written.

    Debian's own holds the source's time, which an image gives up; Python would ignore it then.
    """
    if not (root / "usr/bin/python3").exists():
        return
    folders = sorted({path for pattern in PYTHON_FOLDERS for path in root.glob(pattern)})
    inside = [f"/{path.relative_to(root)}" for path in folders if path.is_dir()]
    # fmt: off
    run(
        [
            "chroot", root, "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "PYTHONHASHSEED=0",
            "python3", "-m", "compileall", "-q", "-f", "-j", "1",
            "--invalidation-mode", "unchecked-hash", *inside,
        ],
        timeout=COMPILE_SECONDS,
        accept=(0, 1),
    )
    # fmt: on


def installed(root: Path) -> frozenset[str]:
    """What a tree's list of packages says is installed: name and version of each."""
    text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    found = set()
    for stanza in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.split("\n") if ": " in line and line[0] != " "
        )
        if fields.get("Status") == "install ok installed":
            found.add(f"{fields['Package']} {fields['Version']}")
    return frozenset(found)
