"""One pool of two nodes for all tests here; each test leaves it empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.moving.parts import Site, site


@pytest.fixture(scope="package")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two machines and two controllers."""
    with site(tmp_path_factory.mktemp("moving")) as made:
        yield made


@pytest.fixture
def pool(started: Site) -> Iterator[Site]:
    """The pool, with nothing in it."""
    yield started
    for one in started.machines:
        one.clear()
