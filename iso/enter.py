"""Runs programs of a file tree away from the host.

What runs there sees the tree, the folders it is given and this machine's devices: no network, no
name of the machine, none of its settings. What it writes elsewhere is gone when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ppn.run import Completed, run

SCRIPT = Path(__file__).with_name("enter.sh")
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TZ": "UTC",
}


def inside(
    tree: Path,
    argv: Sequence[str | Path],
    binds: Mapping[Path, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> list[str]:
    """The command that runs a program of a tree in namespaces of its own; only root may.

    Args:
        tree: the root folder it sees; never written to.
        argv: the program and its arguments, in the tree's terms.
        binds: folders or files of this machine and where they are in there.
        env: additions to its environment, which has nothing of ours.
    """
    shown = [word for outside, place in (binds or {}).items() for word in (str(outside), place)]
    variables = [f"{name}={value}" for name, value in (ENVIRONMENT | dict(env or {})).items()]
    # fmt: off
    return [
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net",
        "sh", str(SCRIPT), str(tree), *shown, "--",
        "/usr/bin/env", "-i", *variables, *(str(word) for word in argv),
    ]
    # fmt: on


def run_in(
    tree: Path,
    argv: Sequence[str | Path],
    *,
    timeout: float,
    binds: Mapping[Path, str] | None = None,
    env: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
) -> Completed:
    """Run a program of a tree to its end and return its output; only root may.

    Args:
        tree: the root folder it sees; never written to.
        argv: the program and its arguments, in the tree's terms.
        timeout: seconds after which it is killed.
        binds: folders or files of this machine and where they are in there.
        env: additions to its environment, which has nothing of ours.
        accept: exit codes that are no error.

    Raises:
        CommandFailed: not startable, timed out, or an exit code outside `accept`.
    """
    return run(inside(tree, argv, binds, env), timeout=timeout, accept=accept)
