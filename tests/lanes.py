"""Runs of the tests side by side share the files: each has those that it comes to first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the option that runs side by side have in common."""
    parser.addoption(
        "--claims",
        type=Path,
        metavar="FOLDER",
        help="run a file of tests only if no other run with this FOLDER has come to it",
    )


def in_turn(items: Iterable[pytest.Item], claims: Path) -> Iterator[pytest.Item]:
    """The tests of one run, file by file, as their turn comes.

    Args:
        items: all tests, those of a file together.
        claims: has a folder for each that a run has come to; what makes it is atomic.
    """
    for file, tests in groupby(items, key=lambda item: item.path):
        try:
            (claims / "-".join(file.parts[1:])).mkdir()
        except FileExistsError:
            continue
        yield from tests


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run what this run comes to first; everything, where no other one is there."""
    claims = session.config.getoption("--claims")
    if claims is None or session.testsfailed:
        return None
    chosen = in_turn(session.items, claims)
    item = next(chosen, None)
    while item is not None:
        after = next(chosen, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = after
    return True
