"""`ppn iso lock`: refresh the lock from the archive, and show what changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from iso.lock import LOCK_FILE, Change, Lock, LockUnusable, changes
from iso.refresh import differs, need_no_older, refreshed
from lab.steps import step
from ppn.cli.exits import Exit
from ppn.cli.output import AsJson, print_json, print_table


def lock(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; say whether there is news.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Refresh the lock of packages from the archive, and show what changed.

    The archive's signatures are checked with Debian's keyring. PPN_MIRROR and PPN_SECURITY_MIRROR
    say where it is; without them it is where this machine's own apt finds it.

    Exit codes: 0 up to date, or refreshed; 1 the archive cannot be asked; 7 with --check: there
    is news.

    Example: ppn iso lock --check
    """
    known = known_lock(LOCK_FILE)
    with step("Ask the archive") as shown:
        now = refreshed(shown.detail)
        need_no_older(known, now)
    news, found = differs(known, now), changes(known, now)
    if news and not check:
        now.write(LOCK_FILE)
    if as_json:
        rows = [{"kind": one.kind, **asdict(one)} for one in found]
        print_json({"changed": news, "written": news and not check, "changes": rows})
    else:
        show(now, found, news=news)
    if news and check:
        raise typer.Exit(Exit.FINDINGS)


def known_lock(path: Path) -> Lock | None:
    """The lock in a file; None when there is none, or none that can be read."""
    try:
        return Lock.read(path)
    except LockUnusable:
        return None


def show(now: Lock, found: tuple[Change, ...], *, news: bool) -> None:
    """Print what changed, and what the lock is about."""
    if found:
        print_table(
            ("package", "what", "before", "after", "in"),
            (
                (one.name, one.kind, one.before or "-", one.after or "-", " ".join(one.trees))
                for one in found
            ),
        )
    mib = sum(package.size for package in now.packages) // 2**20
    typer.echo(
        f"{'changed' if news else 'up to date'}: {len(now.packages)} packages ({mib} MiB), "
        f"{len(now.wheels)} wheels, {', '.join(f'{a.name} of {a.date}' for a in now.archives)}"
    )
