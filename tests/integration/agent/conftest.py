"""A node with a libvirtd of its own; each test starts its agent and leaves the node empty."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import guest
from ppn.run import run
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


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A node whose libvirtd may be killed, with its VMs on a file system of their own."""
    with tempfile.TemporaryDirectory(prefix="ppn-own-") as root:
        node = Node(Path(root))
        node.prepare(guest.cached())
        node.paths.vms.mkdir(mode=0o711)
        run(["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", node.paths.vms], timeout=60)
        daemon = node.start()
        try:
            node.virsh("domcapabilities")
            yield node
        finally:
            node.stop(daemon)
            run(["umount", "-l", node.paths.vms], timeout=60)


@pytest.fixture
def own(own_node: Node) -> Iterator[Agent]:
    """The agent of that node."""
    found = Agent(own_node)
    found.start()
    yield found
    found.end()
