"""A control group for each container, on machines without systemd to give it one."""

from __future__ import annotations

import errno
import time
from pathlib import Path

from lab.errors import LabError

# systemd's own hierarchy and version 2 beside it, or version 2 alone.
MIXED = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
UNIFIED = Path("/sys/fs/cgroup")
REAP_SECONDS = 30


def systemd_runs() -> bool:
    """Whether this machine was booted with systemd, which then owns all control groups."""
    return Path("/run/systemd/system").is_dir()


def hierarchies() -> tuple[Path, ...]:
    """Where a container's systemd will make its groups."""
    if (UNIFIED / "cgroup.controllers").exists():
        return (UNIFIED,)
    return tuple(path for path in MIXED if (path / "cgroup.procs").exists())


def groups(machine: str) -> tuple[Path, ...]:
    """A container's groups: two containers in one would end each other's services."""
    if systemd_runs():
        return ()
    return tuple(path / machine for path in hierarchies())


def remove(machine: str) -> None:
    """Remove a container's groups.

    Raises:
        LabError: a process is still in one of them.
    """
    deadline = time.monotonic() + REAP_SECONDS
    for group in groups(machine):
        while group.is_dir():
            try:
                remove_tree(group)
            except OSError as error:
                # A killed process counts until it is reaped, which takes some machines a while.
                if error.errno != errno.EBUSY:
                    raise
                if time.monotonic() > deadline:
                    raise LabError(
                        f"control group {group} is still in use",
                        hint="end the processes in its cgroup.procs, then repeat",
                    ) from error
                time.sleep(0.05)


def remove_tree(group: Path) -> None:
    """Remove a group and those inside it, deepest first."""
    folders = [path for path in group.rglob("*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        folder.rmdir()
    group.rmdir()
