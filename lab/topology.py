"""Who is in the lab and where: three nodes, two homes behind routers, one pretended internet.

On that internet are two who are no nodes: the pool's operator and a customer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

INTERNET = "internet"
OPERATOR = "operator"
OPERATOR_ADDRESS = "198.51.100.250"
CUSTOMER = "customer"
CUSTOMER_ADDRESS = "198.51.100.60"
INTERNET_PREFIX = 24
WIREGUARD_PORT = 51820


class Kind(StrEnum):
    """What a node is on this machine."""

    CONTAINER = "container"
    VM = "vm"
    # A machine that the provisioning image was booted on, with firmware and a disk of its own.
    INSTALLED = "installed"


@dataclass(frozen=True)
class Site:
    """A home or office: one router with a public address, one network behind it.

    Args:
        name: name of the site and of its router's namespace.
        wan: the router's public address.
        lan: the router's address inside.
        forwards_wireguard: whether the router lets WireGuard's port in from outside.
    """

    name: str
    wan: str
    lan: str
    forwards_wireguard: bool


@dataclass(frozen=True)
class LabNode:
    """One node.

    Args:
        name: its name.
        site: where it stands; `internet` for a node with a public address.
        address: its address there.
        ssh_address: where the operator reaches its port 22.
        gateway: its router; None with a public address.
        memory_mib: a machine's memory.
        nested_kvm: whether a machine emulates the processor's virtualisation.
        numa_nodes: of a machine: each is a socket with its share of the memory.
    """

    name: str
    site: str
    address: str
    ssh_address: str
    gateway: str | None
    memory_mib: int
    nested_kvm: bool
    numa_nodes: int = 1


SITES = (
    Site("site-a", wan="198.51.100.11", lan="192.168.1.1", forwards_wireguard=True),
    Site("site-b", wan="198.51.100.12", lan="192.168.2.1", forwards_wireguard=False),
)
NODES = (
    LabNode("relay", INTERNET, "198.51.100.10", "198.51.100.10", None, 1536, nested_kvm=False),
    LabNode(
        "server",
        "site-a",
        "192.168.1.10",
        "198.51.100.11",
        "192.168.1.1",
        2560,
        nested_kvm=True,
        numa_nodes=2,
    ),
    LabNode(
        "laptop", "site-b", "192.168.2.10", "198.51.100.12", "192.168.2.1", 1536, nested_kvm=False
    ),
)
# Ports of the internet's switch, between which `cut` can stop all traffic.
PORTS = ("relay", "site-a", "site-b", OPERATOR, CUSTOMER)


def node_at(site: str) -> LabNode:
    """The node behind a site's router."""
    return next(node for node in NODES if node.site == site)


def node_named(name: str) -> LabNode | None:
    """The node with this name, if there is one."""
    return next((node for node in NODES if node.name == name), None)


def kinds_of(
    others: Kind, machines: Collection[str] = (), installed: Collection[str] = ()
) -> dict[str, Kind]:
    """What each node of a lab is to be.

    Args:
        others: what those are that are not named.
        machines: names of nodes that are QEMU machines.
        installed: names of nodes that are installed from the provisioning image.
    """
    named = dict.fromkeys(machines, Kind.VM) | dict.fromkeys(installed, Kind.INSTALLED)
    return {node.name: named.get(node.name, others) for node in NODES}
