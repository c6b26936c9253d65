"""How a lab's nodes are: running or not, reachable or not, and how long they took to boot."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.table import Table

from lab import ssh, wiring
from lab.errors import LabError
from lab.paths import LabPaths
from lab.process import recorded
from lab.report import table
from lab.settings import Settings, made_as
from lab.topology import NODES, LabNode


@dataclass(frozen=True)
class NodeStatus:
    """One node as it is now.

    Args:
        node: its name.
        kind: container, vm or installed.
        site: where it stands.
        address: its own address.
        ssh_address: where the operator reaches its port 22.
        state: running or stopped.
        boot_seconds: how long its last start took, until it let us in; None before the first.
        ssh: whether it lets us in now.
    """

    node: str
    kind: str
    site: str
    address: str
    ssh_address: str
    state: str
    boot_seconds: float | None
    ssh: bool


@dataclass(frozen=True)
class LabStatus:
    """A lab as it is now.

    Args:
        name: its name.
        image: digest of its nodes' image.
        nodes: its nodes.
        cuts: pairs of the internet's ports between which nothing passes.
    """

    name: str
    image: str
    nodes: tuple[NodeStatus, ...]
    cuts: tuple[tuple[str, str], ...]


def status(lab: LabPaths) -> LabStatus:
    """Look at a lab, changing nothing.

    Raises:
        LabError: there is no such lab.
    """
    made = made_as(lab)
    if made is None:
        raise LabError(f"there is no lab {lab.name}", hint="make it with `scripts/lab up`")
    with ThreadPoolExecutor(len(NODES)) as pool:
        nodes = tuple(pool.map(lambda node: node_status(lab, made, node), NODES))
    cuts = tuple(sorted(wiring.current_cuts(lab)))
    return LabStatus(lab.name, made.image.digest, nodes, cuts)


def node_status(lab: LabPaths, made: Settings, node: LabNode) -> NodeStatus:
    """Look at one node."""
    paths = lab.node(node.name)
    running = recorded(paths.process) is not None
    seconds = json.loads(paths.boot.read_bytes())["seconds"] if paths.boot.exists() else None
    return NodeStatus(
        node=node.name,
        kind=made.kind_of(node),
        site=node.site,
        address=node.address,
        ssh_address=node.ssh_address,
        state="running" if running else "stopped",
        boot_seconds=seconds,
        ssh=running and ssh.reachable(lab, node.name),
    )


def as_table(found: LabStatus) -> Table:
    """A lab's nodes, ready to print."""
    columns = ("node", "kind", "site", "address", "state", "boot", "ssh")
    shown = table(f"Lab {found.name} (image {found.image})", columns)
    for node in found.nodes:
        boot = "-" if node.boot_seconds is None else f"{node.boot_seconds} s"
        reached = "yes" if node.ssh else "no"
        shown.add_row(node.node, node.kind, node.site, node.address, node.state, boot, reached)
    if found.cuts:
        shown.caption = "cut: " + ", ".join(f"{one} and {other}" for one, other in found.cuts)
    return shown
