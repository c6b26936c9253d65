"""The lock: every Debian package and every wheel that the image is made of, by hash.

One JSON object to a line, sorted, so that a change of it reads well. It names no host: where files
come from is a setting of whoever builds (see `iso.archive`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppn.durable import write_atomic
from ppn.errors import PpnError

LOCK_FILE = Path(__file__).with_name("packages.lock")
MAX_LOCK_BYTES = 8 * 2**20
MAX_PACKAGE_BYTES = 2 * 2**30
DATE = "%Y%m%dT%H%M%SZ"
SHA256 = re.compile(r"[0-9a-f]{64}")
# They become words of commands, lines for pip, and parts of paths and addresses.
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.:~-]*")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~-]*")
PATH = re.compile(rf"{FILE.pattern}(/{FILE.pattern})*")
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*(-[A-Za-z0-9+._]+){4,5}\.whl")


def stamp(date: datetime) -> str:
    """A time as the lock has it and as snapshots are called, for example `20261121T081500Z`."""
    return date.astimezone(UTC).strftime(DATE)


class LockUnusable(PpnError):
    """The lock is missing, damaged, or not about what is to be built."""

    code = "lock_unusable"


@dataclass(frozen=True, order=True)
class Package:
    """A Debian package.

    Args:
        name: its name.
        version: its version, with the epoch if it has one.
        architecture: `amd64` or `all`.
        archive: the name of the archive that has it, `debian` or `debian-security`.
        path: where it is in that archive.
        size: of the file, in bytes.
        sha256: of the file, in hex.
        trees: the file trees that it is part of.
    """

    name: str
    version: str
    architecture: str
    archive: str
    path: str
    size: int
    sha256: str
    trees: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file name, unique in the lock."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, order=True)
class Wheel:
    """A Python package as a node installs it.

    Args:
        file: its file name, which says name, version and platform.
        sha256: of the file, in hex.
    """

    file: str
    sha256: str

    @property
    def name(self) -> str:
        """The package's name."""
        return self.file.split("-", 1)[0]

    @property
    def version(self) -> str:
        """The package's version."""
        return self.file.split("-", 2)[1]


@dataclass(frozen=True, order=True)
class Archive:
    """A Debian archive in the state that the lock was made from.

    Args:
        name: `debian` or `debian-security`.
        suites: the suites that were read.
        date: when the newest of them was published, for example `20261121T081500Z`.
    """

    name: str
    suites: tuple[str, ...]
    date: str

    @property
    def seconds(self) -> int:
        """The date in seconds since 1970."""
        found = datetime.strptime(self.date, DATE).replace(tzinfo=UTC)
        return int(found.timestamp())


@dataclass(frozen=True, order=True)
class Tree:
    """A file tree that is made of packages.

    Args:
        name: its name, as the recipe has it.
        asked: the packages that the recipe asks for; the others come with them.
    """

    name: str
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """What the image is made of.

    Args:
        archives: the archives' states.
        trees: what is built.
        packages: all Debian packages, each once.
        wheels: all wheels of the node stack.
    """

    archives: tuple[Archive, ...]
    trees: tuple[Tree, ...]
    packages: tuple[Package, ...]
    wheels: tuple[Wheel, ...]

    @classmethod
    def read(cls, path: Path = LOCK_FILE) -> Lock:
        """The lock in a file.

        Args:
            path: the file.

        Raises:
            LockUnusable: missing, too large or damaged; the message names the line.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_LOCK_BYTES + 1)
        except OSError as error:
            raise LockUnusable(
                f"cannot read {path}: {error.strerror}", hint="make it with `scripts/iso lock`"
            ) from error
        if len(content) > MAX_LOCK_BYTES:
            raise LockUnusable(f"{path} is larger than {MAX_LOCK_BYTES} bytes")
        return parse(content.decode(errors="replace"), str(path))

    def write(self, path: Path) -> None:
        """Put the lock into a file, whole or not at all."""
        write_atomic(path, self.text().encode())

    def text(self) -> str:
        """The lock as its file holds it; the same for equal locks."""
        lines: list[str] = []
        for kind, entries in (
            ("archive", self.archives),
            ("tree", self.trees),
            ("package", self.packages),
            ("wheel", self.wheels),
        ):
            found: Sequence[Any] = sorted(entries)
            lines += [json.dumps({"kind": kind} | asdict(entry)) + "\n" for entry in found]
        return "".join(lines)

    @property
    def epoch(self) -> int:
        """The newest archive's date, in seconds since 1970: no file of a tree is younger."""
        return max(archive.seconds for archive in self.archives)

    def of(self, tree: str) -> tuple[Package, ...]:
        """The packages of a tree, sorted."""
        return tuple(sorted(one for one in self.packages if tree in one.trees))

    def check(self, tree: str, asked: Sequence[str]) -> None:
        """Refuse to build a tree that the lock was not made for.

        Args:
            tree: its name.
            asked: the packages that its recipe asks for now.

        Raises:
            LockUnusable: the lock has other ones; the message says which.
        """
        known = next((one for one in self.trees if one.name == tree), None)
        if known is None:
            raise LockUnusable(
                f"the lock has no tree {tree}", code="lock_stale", hint="run `scripts/iso lock`"
            )
        differs = sorted(set(known.asked) ^ set(asked))
        if differs:
            raise LockUnusable(
                f"the lock of {tree} was made before its list changed: {', '.join(differs)}",
                code="lock_stale",
                hint="run `scripts/iso lock`, look at what changed, commit it",
            )


def parse(text: str, source: str) -> Lock:
    """The lock that a text holds.

    Args:
        text: one JSON object to a line.
        source: what messages call it.

    Raises:
        LockUnusable: a line is not what it should be.
    """
    found: dict[str, list[Any]] = {"archive": [], "tree": [], "package": [], "wheel": []}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            fields = json.loads(line)
            kind = fields.pop("kind")
            found[kind].append(_entry(kind, fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LockUnusable(
                f"{source} line {number} is damaged",
                hint="take the committed file, or make it again with `scripts/iso lock`",
            ) from error
    lock = Lock(*(tuple(sorted(found[kind])) for kind in ("archive", "tree", "package", "wheel")))
    if not lock.archives:
        raise LockUnusable(f"{source} names no archive", hint="make it with `scripts/iso lock`")
    _check_whole(lock, source)
    return lock


def _entry(kind: str, fields: Mapping[str, Any]) -> Archive | Tree | Package | Wheel:
    given = {name: tuple(it) if isinstance(it, list) else it for name, it in fields.items()}
    kinds: dict[str, Any] = {"archive": Archive, "tree": Tree, "package": Package, "wheel": Wheel}
    entry: Archive | Tree | Package | Wheel = kinds[kind](**given)
    match entry:
        case Archive():
            _check(NAME, entry.name)
            _check(FILE, *_words(entry.suites))
            if entry.seconds < 0:
                raise ValueError(entry.date)
        case Tree():
            _check(NAME, entry.name, *_words(entry.asked))
        case Wheel():
            _check(WHEEL, entry.file)
            _check(SHA256, entry.sha256)
        case Package():
            _check(NAME, entry.name, entry.architecture, entry.archive, *_words(entry.trees))
            _check(VERSION, entry.version)
            _check(PATH, entry.path)
            _check(SHA256, entry.sha256)
            if type(entry.size) is not int or not 0 < entry.size <= MAX_PACKAGE_BYTES:
                raise ValueError(entry.size)
    return entry


def _words(value: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(value, tuple):
        raise TypeError(value)
    return value


def _check(pattern: re.Pattern[str], *words: str) -> None:
    for word in words:
        if not pattern.fullmatch(word):
            raise ValueError(word)


def _check_whole(lock: Lock, source: str) -> None:
    """Refuse what two lines say differently, and packages of an archive that there is not."""
    archives = [one.name for one in lock.archives]
    named = {
        "archive": archives,
        "tree": [one.name for one in lock.trees],
        "package": [one.name for one in lock.packages],
        "file": [*(one.file for one in lock.packages), *(one.file for one in lock.wheels)],
        "wheel": [one.name for one in lock.wheels],
    }
    wrong = [f"the {kind} {name} twice" for kind, names in named.items() for name in _twice(names)]
    for one in lock.packages:
        if one.archive not in archives:
            wrong.append(f"{one.name} of the archive {one.archive}, which it does not have")
    if wrong:
        raise LockUnusable(
            f"{source} names {', '.join(wrong[:3])}",
            hint="take the committed file, or make it again with `scripts/iso lock`",
        )


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in sorted(Counter(names).items()) if count > 1]


@dataclass(frozen=True, order=True)
class Change:
    """What became of a package between two locks.

    Args:
        name: the package or wheel.
        before: its version, empty when it is new.
        after: its version now, empty when it is gone.
        trees: where it is, or was; `wheels` for one of Python.
    """

    name: str
    before: str
    after: str
    trees: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`added`, `removed`, `version`, or `content`: same version, other bytes or trees."""
        if not self.before:
            return "added"
        if not self.after:
            return "removed"
        return "version" if self.before != self.after else "content"


def changes(before: Lock | None, after: Lock) -> tuple[Change, ...]:
    """What changed between two locks, the archives' dates aside.

    Args:
        before: the old one; None when there is none.
        after: the new one.
    """
    old = _by_name(before) if before is not None else {}
    new = _by_name(after)
    differs = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return tuple(_change(key[1], old.get(key), new.get(key)) for key in differs)


def _change(name: str, old: Package | Wheel | None, new: Package | Wheel | None) -> Change:
    last = new or old
    return Change(
        name,
        old.version if old else "",
        new.version if new else "",
        last.trees if isinstance(last, Package) else ("wheels",),
    )


def _by_name(lock: Lock) -> dict[tuple[str, str], Package | Wheel]:
    packages: dict[tuple[str, str], Package | Wheel] = {
        ("package", one.name): one for one in lock.packages
    }
    return packages | {("wheel", one.name): one for one in lock.wheels}
