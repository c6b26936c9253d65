"""One node with a libvirtd of its own; each test starts its agent and leaves the node empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.agent.agents import Agent, Ear, listening
from tests.integration.host.node import Node, started


@pytest.fixture(scope="package")
def started_node() -> Iterator[Node]:
    with started("ppn-agent-") as made:
        yield made


@pytest.fixture
def node(started_node: Node) -> Iterator[Node]:
    """The node, empty; what the test leaves on it is removed."""
    assert started_node.nothing_is_left()
    yield started_node
    started_node.clear()
    paths = started_node.paths
    for path in (paths.kvm_verdict, paths.agent_boot, started_node.root / "agent.log"):
        path.unlink(missing_ok=True)
    for path in paths.timelines.glob("*"):
        path.unlink()


@pytest.fixture
def stopped(node: Node) -> Iterator[Agent]:
    """The node's agent, not started."""
    agent = Agent(node)
    yield agent
    agent.end()


@pytest.fixture
def agent(stopped: Agent) -> Agent:
    """The node's agent, serving."""
    stopped.start()
    return stopped


@pytest.fixture
def ear() -> Iterator[Ear]:
    """A controller that hears."""
    with listening() as found:
        yield found
