"""Pools to test with: a small known one, and Hypothesis strategies for any."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from ppn.inventory import Node, Pool, TenantPeer
from ppn.mesh.registry import Registry

MESH = IPv4Network("10.8.0.0/24")


def key_of(name: str) -> str:
    """A text with the form of a public key, the same for the same name."""
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def registry_of(pool: Pool) -> Registry:
    """A registry that knows every node."""
    return Registry({node.name: key_of(node.name) for node in pool.nodes})


def node(
    name: str,
    host: int,
    site: str = "a",
    roles: tuple[str, ...] = (),
    endpoint: str | None = None,
    ranges: tuple[str, ...] = (),
    site_endpoint: str | None = None,
) -> Node:
    """A node of the mesh 10.8.0.0/24."""
    return Node(
        name,
        MESH[host],
        site,
        frozenset(roles),
        endpoint,
        ranges=tuple(IPv4Network(one) for one in ranges),
        site_endpoint=site_endpoint,
    )


def customer(name: str, host: int, tenant: str = "acme") -> TenantPeer:
    """A customer's machine in the mesh 10.8.0.0/24."""
    return TenantPeer(name, tenant, MESH[host], key_of(name))


def pool(*nodes: Node, customers: tuple[TenantPeer, ...] = ()) -> Pool:
    """A pool of these nodes."""
    return Pool(MESH, "ppn0", 51820, nodes, customers)


RELAY = node("relay", 1, "cloud", ("relay",), "198.51.100.1:51820")
SERVER = node("server", 2, "a", ("hypervisor",), "198.51.100.2:51820", ("192.168.10.0/24",))
LAPTOP = node("laptop", 3, "b")
PHONE = node("phone", 4, "c")
SMALL = pool(RELAY, SERVER, LAPTOP, PHONE)


@st.composite
def pools(draw: st.DrawFn, relays: bool | None = None, customers: bool | None = None) -> Pool:
    """Any sound pool.

    Args:
        relays: whether it has one or more; both when not given.
        customers: whether it has customers and a relay; both when not given.
    """
    customers = customers if customers is not None else relays is True and draw(st.booleans())
    relays = True if customers else relays
    hosts = draw(st.lists(st.integers(1, 250), min_size=1, max_size=6, unique=True))
    nodes = []
    for index, host in enumerate(hosts):
        is_relay = (relays is not False) and draw(st.booleans())
        is_relay = is_relay or (relays is True and index == len(hosts) - 1)
        endpoint = f"198.51.100.{host}:51820" if is_relay or draw(st.booleans()) else None
        is_proxy = customers and (index == 0 or draw(st.booleans()))
        roles = {"relay": is_relay, "tenant-proxy": is_proxy}
        nodes.append(
            Node(
                f"n{host}",
                IPv4Address(MESH[host]),
                draw(st.sampled_from("abc")),
                frozenset(role for role, has in roles.items() if has),
                endpoint,
                ranges=tuple(
                    IPv4Network(f"192.168.{host}.{part * 128}/25")
                    for part in range(draw(st.integers(0, 2)))
                ),
                site_endpoint=draw(st.sampled_from([None, f"192.0.2.{host}:51820"])),
            )
        )
    found = (customer("one", 251), customer("two", 252, "beta")) if customers else ()
    return pool(*nodes, customers=found)
