"""What makes a node a tenant proxy: its user, its settings, its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pyinfra import host
from pyinfra.api import deploy

from deploys.units import service_files
from deploys.witness import witnesses_of
from operations import files, systemd, users
from operations.files import File
from operations.systemd import Unit
from ppn.host.proxy.policy import CONTROLLER
from ppn.inventory import TENANT_PROXY, Pool
from ppn.mesh.firewall import Service
from ppn.pool.tls import NODE_KEY
from ppn.tenant.settings import DEFAULT_PORT, DEFAULT_STORE, PATH, PeerOf, TenantSettings

USER = "ppn-tenant"
UNIT = "ppn-tenant.service"
# The one port of the pool that customers reach, from addresses that the inventory gives them.
SERVICE = Service(DEFAULT_PORT, on_role=TENANT_PROXY, for_tenants=True)


def tenant_files(pool: Pool, name: str, store: str = DEFAULT_STORE) -> dict[str, File]:
    """A tenant proxy's settings and unit.

    Args:
        pool: the sound nodes of the inventory.
        name: of the node it runs on.
        store: URL of the tenant store; the same for all proxies of the pool.
    """
    node = pool.node(name)
    settings = TenantSettings(
        name=node.name,
        address=node.address,
        mesh_range=pool.range,
        controllers=tuple(one.address for one in pool.nodes if CONTROLLER in one.roles),
        nodes=tuple(one.address for one in pool.nodes),
        peers=tuple(PeerOf(address=one.address, tenant=one.tenant) for one in pool.tenant_peers),
        store=store,
        witnesses=witnesses_of(pool, name),
    )
    return service_files(PATH, settings, UNIT, pool.interface)


def store_of(data: Mapping[str, Any]) -> str:
    """The URL of the tenant store, from a node's inventory data."""
    return str(data.get("tenant_store", DEFAULT_STORE))


def tenant_proxy_problems(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """What keeps nodes from being tenant proxies, each with its next step.

    Args:
        nodes: per node its inventory data.
    """
    proxies = {name: data for name, data in nodes.items() if TENANT_PROXY in _roles(data)}
    controllers = [name for name, data in nodes.items() if CONTROLLER in _roles(data)]
    found: dict[str, list[str]] = {name: [] for name in proxies}
    for name, data in proxies.items():
        if not controllers:
            found[name].append(
                f"node {name} has the role {TENANT_PROXY}, but no node is a {CONTROLLER}: give one"
                " that role (tenant_proxy_without_controller)"
            )
        url = store_of(data)
        if _has_password(url):
            found[name].append(
                f"node {name}: tenant_store has a password in it, and everybody on the node may"
                " read its settings: write '?passfile=FILE' instead (tenant_store_password)"
            )
        elif not url.startswith(("sqlite:////", "postgresql://")):
            found[name].append(
                f"node {name}: tenant_store {url!r} is no store: write {DEFAULT_STORE!r} or"
                " 'postgresql://USER@HOST/DATABASE?passfile=FILE' (tenant_store_invalid)"
            )
        elif len(proxies) > 1 and (
            url.startswith("sqlite") or url != store_of(nodes[min(proxies)])
        ):
            found[name].append(
                f"node {name}: tenant_store {url!r} is not shared by {' and '.join(proxies)}: give"
                " all of them the same PostgreSQL URL (tenant_store_not_shared)"
            )
    return found


def _has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.password is not None or "password" in parse_qs(parts.query)


def _roles(data: Mapping[str, Any]) -> Sequence[object]:
    roles = data.get("roles", [])
    return roles if isinstance(roles, list | tuple) else []


@deploy("Tenant proxy")
def tenant_proxy(pool: Pool, installed: dict[str, File]) -> None:
    """Open the pool's door for customers on a node.

    Args:
        pool: the sound nodes of the inventory.
        installed: the marker of the ppn software: the proxy restarts with it.
    """
    users.system(name="User of the tenant proxy", users=[USER])
    wanted = tenant_files(pool, host.name, store_of(host.data.dict()))
    files.rendered(name="Settings of the tenant proxy", files=wanted)
    # A changed certificate is taken over without a restart; a key is given once, at the start.
    systemd.units(
        name="Tenant proxy",
        units=(Unit(UNIT, restart_after=(PATH, NODE_KEY, *installed)),),
        files={**wanted, **installed},
    )
