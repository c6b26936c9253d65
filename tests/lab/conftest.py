"""One lab of containers for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.pool import LabPool, Run


@pytest.fixture(scope="package")
def started() -> Iterator[LabPool]:
    """A lab whose nodes are up and on which nothing was ever run."""
    pool = LabPool(f"test-{os.getpid()}")
    try:
        pool.lab("up")
        yield pool
    finally:
        pool.lab("destroy")


@pytest.fixture(scope="package")
def first_dry_run(started: LabPool) -> Run:
    """What a dry run over the fresh lab announces."""
    return started.pyinfra("--dry")


@pytest.fixture(scope="package")
def first_run(started: LabPool, first_dry_run: Run) -> Run:
    """The run that turned the fresh lab into a pool."""
    return started.pyinfra("-y")


@pytest.fixture(scope="package")
def pool(started: LabPool, first_run: Run) -> LabPool:
    """A lab that is a pool."""
    assert first_run.returncode == 0, first_run.log
    return started
