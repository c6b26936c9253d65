"""The files that put a tenant proxy on a node, and inventories that cannot have one."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from deploys.fleet_controller import controller_files
from deploys.pool import read_pool
from deploys.services import SERVICES
from deploys.tenant_proxy import SERVICE, UNIT, tenant_files
from ppn.audit.witness.settings import WitnessAt
from ppn.fleet.settings import FleetSettings
from ppn.inventory import Pool, TenantPeer
from ppn.tenant.settings import PATH, PeerOf, TenantSettings

RELAY: dict[str, Any] = {
    "roles": ["relay", "controller", "tenant-proxy"],
    "site": "cloud",
    "mesh_address": "10.8.0.1",
    "endpoint": "198.51.100.10:51820",
}
OTHER: dict[str, Any] = {
    "roles": ["controller", "witness"],
    "site": "a",
    "mesh_address": "10.8.0.2",
}
SHARED = "postgresql://ppn@db.example.net/tenants?passfile=/etc/ppn/store.pass"


def pool() -> Pool:
    """A relay with the customers' door, and a second controller."""
    found = read_pool({"relay": RELAY, "other": OTHER})
    assert not any(found.problems.values()), found.problems
    return found.pool


def test_it_knows_every_controller_and_every_controller_knows_it() -> None:
    """TEN-01, FLEET-18: the proxy asks; controllers take requests from its address."""
    settings = TenantSettings.model_validate_json(tenant_files(pool(), "relay")[PATH].content)
    assert settings.address == IPv4Address("10.8.0.1") and settings.port == 9221
    assert settings.controllers == (IPv4Address("10.8.0.1"), IPv4Address("10.8.0.2"))
    assert settings.fleet == ("http://10.8.0.1:9203", "http://10.8.0.2:9203")
    assert not settings.development
    # Another node remembers how far its audit log was.
    (witness,) = settings.witnesses
    assert (witness.name, witness.url) == ("ppn/witness/other", "http://10.8.0.2:9222")
    for name in ("relay", "other"):
        content = controller_files(pool(), name)["/etc/ppn/fleet.json"].content
        assert FleetSettings.model_validate_json(content).callers == (settings.address,)


def test_it_knows_whose_each_customers_machine_is() -> None:
    """TEN-03, MESH-03: a token is good at its own tenant's machines, and at the nodes."""
    peer = TenantPeer("acme-desk", "acme", IPv4Address("10.8.0.200"), "key")
    content = tenant_files(replace(pool(), tenant_peers=(peer,)), "relay")[PATH].content
    settings = TenantSettings.model_validate_json(content)
    assert settings.nodes == (IPv4Address("10.8.0.1"), IPv4Address("10.8.0.2"))
    assert settings.peers == (PeerOf(address=IPv4Address("10.8.0.200"), tenant="acme"),)


def test_its_audit_log_is_sent_to_witnesses_on_other_nodes() -> None:
    """TEN-12: what the proxy's own host rewrites, they still know."""
    settings = TenantSettings.model_validate_json(tenant_files(pool(), "relay")[PATH].content)
    assert settings.witnesses == (WitnessAt("ppn/witness/other", "http://10.8.0.2:9222"),)


def test_systemd_rates_the_unit_ok(tmp_path: Path) -> None:
    path = tmp_path / UNIT
    content = tenant_files(pool(), "relay")[f"/etc/systemd/system/{UNIT}"].content
    assert "wg-quick@ppn0.service" in content and "INTERFACE" not in content
    path.write_text(content)
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+) (\w+)", done.stdout)
    assert found and float(found[1]) <= 2.0 and found[2] == "OK", done.stdout


def test_it_can_look_up_the_host_of_its_store() -> None:
    """TEN-09: a shared store is on a host, and hosts have names."""
    content = tenant_files(pool(), "relay")[f"/etc/systemd/system/{UNIT}"].content
    assert "TemporaryFileSystem=/etc:ro" in content
    seen = re.findall(r"^BindReadOnlyPaths=(.*)$", content, re.MULTILINE)
    assert {"-/etc/resolv.conf", "-/etc/hosts"} <= set(" ".join(seen).split())
    # A name server may have an IPv6 address alone, and the sockets to it are the proxy's own.
    families = re.findall(r"^RestrictAddressFamilies=(.*)$", content, re.MULTILINE)
    assert families == ["AF_UNIX AF_INET AF_INET6"]
    assert "IPAddressDeny" not in content


def test_customers_reach_its_port_and_no_other() -> None:
    """MESH-03."""
    assert [one for one in SERVICES if one.for_tenants] == [SERVICE]
    assert (SERVICE.port, SERVICE.on_role) == (9221, "tenant-proxy")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"relay": {"roles": ["relay", "tenant-proxy"]}, "other": {"roles": []}}, "controller"),
        ({"relay": {"tenant_store": "mysql://x"}}, "tenant_store_invalid"),
        ({"relay": {"tenant_store": "sqlite:///relative"}}, "tenant_store_invalid"),
        (
            {
                "relay": {"roles": ["relay", "controller", "tenant-proxy"]},
                "other": {"roles": ["tenant-proxy"]},
            },
            "tenant_store_not_shared",
        ),
        (
            {
                "relay": {"tenant_store": SHARED},
                "other": {"roles": ["tenant-proxy"], "tenant_store": SHARED + "2"},
            },
            "tenant_store_not_shared",
        ),
    ],
)
def test_a_door_that_could_not_work_is_refused(changes: dict[str, Any], code: str) -> None:
    """TEN-09: two proxies with a store each would let a tenant have its ceiling twice."""
    nodes = {"relay": RELAY | changes["relay"], "other": OTHER | changes.get("other", {})}
    problems = [text for texts in read_pool(nodes).problems.values() for text in texts]
    assert any(code in text for text in problems), problems


@pytest.mark.parametrize(
    "url", ["postgresql://ppn:hidden@db/tenants", "postgresql://ppn@db/tenants?password=hidden"]
)
def test_a_password_gets_no_further_than_the_inventory(url: str) -> None:
    """TEN-03's rule: the settings it would be written into are for everybody to read."""
    problems = read_pool({"relay": RELAY | {"tenant_store": url}, "other": OTHER}).problems["relay"]
    assert any("tenant_store_password" in text for text in problems), problems
    assert "hidden" not in "".join(problems)


def test_two_doors_with_one_store_are_fine() -> None:
    """TEN-09."""
    nodes = {
        "relay": RELAY | {"tenant_store": SHARED},
        "other": OTHER | {"roles": ["tenant-proxy"], "tenant_store": SHARED},
    }
    assert not any(read_pool(nodes).problems.values())
