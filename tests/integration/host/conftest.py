"""One node for all tests here; each test leaves it as empty as it found it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import guest
from tests.integration.host.node import Node


@pytest.fixture(scope="session")
def started_node() -> Iterator[Node]:
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ppn-host-") as root:
        node = Node(Path(root))
        node.prepare(guest.cached())
        daemon = node.start()
        try:
            yield node
        finally:
            node.stop(daemon)


@pytest.fixture
def node(started_node: Node) -> Iterator[Node]:
    """The node, empty; what the test leaves on it is removed."""
    assert started_node.nothing_is_left()
    yield started_node
    for vm in started_node.state().vms:
        started_node.apply(name=vm.name, state="absent")
    for path in (started_node.paths.ledger, started_node.paths.kvm_verdict):
        path.unlink(missing_ok=True)
