"""A VM as a customer has it: through the tenant proxy, and no other way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from shlex import quote
from typing import Any

import pytest

from tests.lab.pool import LabPool, eventually
from tests.lab.test_3_spawn import (
    CONTROLLERS,
    HYPERVISORS,
    Api,
    logged,
    nothing_is_left,
    restarted,
)

PROXY = "https://10.8.0.1:9221"
ORDER = {"image": "tiny", "vcpus": 1, "memory_mib": 160, "label": "shop"}
TENANT = "lab-shop"
# Runs on a node, whose Python is there anyway: TLS with the pool's authority, and a token by file.
ASK = """
import json, ssl, sys, urllib.error, urllib.request
method, url, body, token, headers = json.loads(sys.argv[1])
trust = ssl.create_default_context(cafile="/etc/ppn/tls/trust.crt")
headers = {"Content-Type": "application/json", **headers}
if token:
    headers["Authorization"] = "Bearer " + open(token).read().strip()
data = None if body is None else json.dumps(body).encode()
request = urllib.request.Request(url, data, headers, method=method)
try:
    answer = urllib.request.urlopen(request, timeout=170, context=trust)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, dict(answer.headers), json.loads(answer.read() or b"null")]))
"""


class Shop:
    """A tenant, asked for from a node that is no controller and no proxy.

    Args:
        pool: the lab.
    """

    token_file = "/root/shop.token"

    def __init__(self, pool: LabPool) -> None:
        self.pool = pool

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of an answer."""
        token = self.token_file if token is None else token
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        words = json.dumps([method, PROXY + path, body, token, headers])
        text = self.pool.run("laptop", f"python3 -c {quote(ASK)} {quote(words)}")
        status, answered, found = json.loads(text)
        return status, {name.lower(): value for name, value in answered.items()}, found


@pytest.fixture(scope="module")
def shop(pool: LabPool) -> Iterator[Shop]:
    """A tenant with room for two VMs; it goes with the test."""
    ceiling = "--memory-mib 320 --vcpus 2 --disk-gib 10 --vms 2"
    made = json.loads(pool.run("relay", f"ppn tenant create {TENANT} {ceiling} --json"))
    token = made["token"]["secret"]
    pool.run("laptop", f"umask 077; printf %s {token} > {Shop.token_file}")
    one = Shop(pool)
    eventually(Api(pool).live, "every hypervisor is heard")
    yield one
    for own in one.ask("GET", "/v1/vms")[2]:
        assert one.ask("DELETE", f"/v1/vms/{own['vm']['id']}")[0] == 200
    pool.run("relay", f"ppn tenant remove {TENANT}")


def test_the_proxy_runs_as_it_should(pool: LabPool) -> None:
    """TEN-01: unprivileged, on the mesh address alone, with a log and a store of its own."""
    host = pool.node("relay")
    service = host.service("ppn-tenant")
    assert service.is_running and service.is_enabled
    assert host.check_output("systemctl show -P User ppn-tenant") == "ppn-tenant"
    listening = host.check_output("ss -Hltn 'sport = 9221'").split()
    assert "10.8.0.1:9221" in listening and "0.0.0.0:9221" not in listening
    folder = host.file("/var/lib/ppn-tenant")
    assert (folder.user, folder.mode) == ("ppn-tenant", 0o700)
    for name in ("tenants.db", "audit/journal", "audit.key"):
        assert host.file(f"/var/lib/ppn-tenant/{name}").user == "ppn-tenant"


def test_a_vm_through_every_hop_with_one_correlation_id(pool: LabPool, shop: Shop) -> None:
    """FLEET-18, TEN-01, TEN-04, INV-03: proxy, controller, node proxy, agent; and gone again."""
    correlation = "lab-shop-1"
    status, headers, made = shop.ask(
        "POST", "/v1/vms", ORDER, Idempotency_Key="shop-1", Ppn_Correlation_Id=correlation
    )
    assert (status, made["vm"]["state"], made["vm"]["owner"]) == (201, "running", TENANT), made
    assert headers["ppn-correlation-id"] == correlation
    for word in (*HYPERVISORS, *HYPERVISORS.values(), *CONTROLLERS, "10.9."):
        assert word not in json.dumps(made)
    vm = made["vm"]["id"]
    placed = Api(pool).get(f"/vms/{vm}")
    node = placed["node"]

    def controllers() -> list[str]:
        return [name for name in CONTROLLERS if logged(pool, name, "ppn-fleet", correlation)]

    controller = eventually(controllers, "a controller has logged it")[0]
    hops = [("relay", "ppn-tenant"), (controller, "ppn-fleet")]
    for where, unit in (*hops, (node, "ppn-node-proxy"), (node, "ppn-agent")):
        eventually(partial(logged, pool, where, unit, correlation), f"{unit} has logged it")
    assert pool.run("relay", f"grep -c {correlation} /var/lib/ppn-tenant/audit/journal") == "2"
    assert placed["vm"]["owner"] == TENANT
    sidecar = pool.run(node, f"cat /var/lib/ppn/vms/{vm}/sidecar.json")
    assert f'"{TENANT}"' in sidecar
    used = shop.ask("GET", "/v1/quota")[2]["used"]
    assert used == {"memory_mib": 160, "vcpus": 1, "disk_gib": 1, "vms": 1}
    over = shop.ask("POST", "/v1/vms", ORDER | {"memory_mib": 192})
    assert (over[0], over[2]["code"]) == (403, "quota_exceeded")
    assert shop.ask("DELETE", f"/v1/vms/{vm}")[2] == {"id": vm}
    assert nothing_is_left(pool, node, vm, placed["vm"]["address"]) == ""
    assert shop.ask("GET", "/v1/quota")[2]["used"]["vms"] == 0


def test_nobody_elses_vm_and_no_other_token(pool: LabPool, shop: Shop) -> None:
    """TEN-05, TEN-03: the operator's own VMs are like any that never were."""
    foreign = shop.ask("GET", "/v1/vms/web")
    unknown = shop.ask("GET", "/v1/vms/vm-that-never-was")
    assert foreign[0] == unknown[0] == 404 and foreign[2]["code"] == unknown[2]["code"]
    assert shop.ask("GET", "/v1/vms", token="")[0] == 401
    assert shop.ask("GET", "/v1/allocations")[0] == 403
    listed = json.loads(pool.run("relay", f"ppn tenant token list {TENANT} --json"))["tokens"]
    pool.run("relay", f"ppn tenant token revoke {listed[0]['id']}")
    try:
        assert shop.ask("GET", "/v1/vms")[0] == 401
    finally:
        again = json.loads(pool.run("relay", f"ppn tenant token issue {TENANT} --json"))
        secret = again["secret"]
        pool.run("laptop", f"printf %s {secret} > {Shop.token_file}")
    assert shop.ask("GET", "/v1/vms")[0] == 200


@pytest.mark.fault(
    "kill -9 of the tenant proxy in the lab",
    "systemd starts it again; tenants, tokens and what is taken are what they were",
)
def test_a_killed_proxy_comes_back(pool: LabPool, shop: Shop) -> None:
    """TEN-04."""
    before = shop.ask("GET", "/v1/quota")[2]
    pid = pool.run("relay", "systemctl show -P MainPID ppn-tenant")
    pool.run("relay", f"kill -9 {pid}")
    eventually(partial(restarted, pool, "relay", "ppn-tenant", pid), "the proxy listens again")
    assert shop.ask("GET", "/v1/quota")[2] == before
