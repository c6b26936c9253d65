"""Every test here runs on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.tenant.store import Store
from tests.postgres import Cluster, cluster


@pytest.fixture(scope="package")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server for all tests of this folder."""
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tenants.db"
    found: Cluster = request.getfixturevalue("postgres")
    return found.database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A new tenant store."""
    opened = Store.open(url, upgrade=True)
    yield opened
    opened.close()
