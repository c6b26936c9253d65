"""One node for all tests here; each test leaves it as empty as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.host.node import Node, started


@pytest.fixture(scope="package")
def started_node() -> Iterator[Node]:
    with started("ppn-host-") as made:
        yield made


@pytest.fixture
def node(started_node: Node) -> Iterator[Node]:
    """The node, empty; what the test leaves on it is removed."""
    assert started_node.nothing_is_left()
    yield started_node
    started_node.clear()
    for path in (started_node.paths.ledger, started_node.paths.kvm_verdict):
        path.unlink(missing_ok=True)
