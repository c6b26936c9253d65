"""Operations on files: a role's files in one round trip, atomic, private from their first byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pyinfra import host, state
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.operations.util.files import generate_color_diff

from facts.files import FileStatus, Statuses, Text
from operations.failure import unreadable

INSTALLER = (Path(__file__).parent / "install_files.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class File:
    """A file as it should be.

    Args:
        content: the whole text.
        mode: permission bits as four octal digits.
        owner, group: names that exist on the node.
        check: argv that must accept the new file before it replaces the old; `{}` is its path.
        secret: never shown in a diff.
    """

    content: str
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    check: tuple[str, ...] = ()
    secret: bool = False

    @property
    def status(self) -> FileStatus:
        """What a fact would read off a node that has this file."""
        digest = hashlib.sha256(self.content.encode()).hexdigest()
        return FileStatus(self.mode, self.owner, self.group, digest)


def plan(wanted: Mapping[str, File], actual: Mapping[str, FileStatus | None]) -> tuple[str, ...]:
    """The paths whose content, mode or owner differ, in the order they were declared."""
    return tuple(path for path, file in wanted.items() if actual.get(path) != file.status)


def payload(wanted: Mapping[str, File], paths: tuple[str, ...]) -> str:
    """What the installer on the node reads: the files to write, as JSON."""
    return json.dumps([{"path": path, **asdict(wanted[path])} for path in paths])


@operation()
def rendered(
    files: dict[str, File],
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare files by their whole content.

    All files are staged and checked before the first is replaced; each is replaced atomically.

    + files: absolute path to `File`.

    **Example:**

    .. code:: python

        files.rendered(
            name="Settings of the agent",
            files={"/etc/ppn/node.json": File(content="{}\n", mode="0644")},
        )
    """
    actual = host.get_fact(Statuses, paths=list(files))
    if actual is None:
        yield unreadable(", ".join(files))
        return
    paths = plan(files, actual)
    if not paths:
        host.noop(f"{len(files)} files are as declared")
        return
    if state.config.DIFF:
        show_diff(files, paths)
    yield StringCommand("python3", "-I", "-c", QuoteString(INSTALLER), _stdin=payload(files, paths))


def show_diff(files: Mapping[str, File], paths: tuple[str, ...]) -> None:
    """Print what would change inside each file that holds no secret."""
    for path in paths:
        if files[path].secret:
            host.log(f"{path}: content not shown")
            continue
        before = host.get_fact(Text, path=path) or ""
        host.log(f"Will modify {path}")
        after = files[path].content
        for line in generate_color_diff(before.splitlines(), after.splitlines()):
            host.log(f"  {line}")


@operation()
def absent(paths: list[str]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare that files are not there.

    + paths: absolute paths of files or links; a folder is left alone and fails the host.

    **Example:**

    .. code:: python

        files.absent(name="No packaged configuration", paths=["/etc/nftables.conf"])
    """
    actual = host.get_fact(Statuses, paths=paths)
    if actual is None:
        yield unreadable(", ".join(paths))
        return
    present = [path for path in paths if actual.get(path) is not None]
    if not present:
        host.noop("already absent")
        return
    yield StringCommand("rm", "--", *(QuoteString(path) for path in present))
