"""Two tenants, every route, every kind of id, every kind of token (TEN-01, TEN-02, TEN-05)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from ppn.errors import PpnError
from ppn.tenant.guard import OPERATOR
from ppn.tenant.openapi import guarded_routes
from ppn.tenant.store import Store
from tests.integration.tenant_proxy.parts import ORDER, TenantProxy, allocate, provision, recording
from tests.integration.tenant_proxy.recorder import NODE, Recorder

# What a sound request to each route that takes a body says.
BODIES: dict[str, Any] = {
    "create": ORDER,
    "resize": {"memory_mib": 512},
    "attach": {"name": "data", "size_gib": 1},
    "move": {"node": "elsewhere"},
}
GUARDED = guarded_routes()
ABOUT_ONE = [route for route in GUARDED if "{vm}" in route.path]
OTHERS = [route for route in GUARDED if "{vm}" not in route.path]
IDS = {"own": "vm-own", "foreign": "vm-foreign", "unknown": "vm-never", "deleted": "vm-deleted"}


@dataclass
class Stand:
    """A proxy with two tenants, and the controller behind it."""

    proxy: TenantProxy
    recorder: Recorder
    store: Store
    tokens: dict[str, dict[str, str]]
    client: httpx.Client

    def ask(self, route: APIRoute, vm: str, authorization: str | None) -> httpx.Response:
        """Send a sound request to a route."""
        method = next(iter(route.methods or ()))
        path = route.path.replace("{vm}", vm).replace("{disk}", "data")
        headers = {} if authorization is None else {"Authorization": authorization}
        query = {"discard": "true"} if route.name == "detach" else {}
        return self.client.request(
            method, path, json=BODIES.get(route.name), headers=headers, params=query
        )

    def renew(self, tenant: str, vm: str) -> None:
        """Have a tenant's VM, whatever was done to it before."""
        begun = {one.vm: one for one in self.store.allocations(tenant)}
        if vm not in begun:
            allocate(self.store, tenant, vm)
        self.recorder.hold(vm, tenant, disks=[{"name": "data", "size_gib": 1}])


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Tenants `acme` and `other`, each with a VM of its own."""
    limits = {"rate": 10000, "burst": 10000, "source_rate": 10000}
    with recording(tmp_path_factory.mktemp("matrix"), settings={"limits": limits}) as (
        proxy,
        recorder,
    ):
        store = Store.open(proxy.store)
        made = {tenant: tokens_of(store, tenant) for tenant in ("acme", "other")}
        with proxy.client() as client:
            yield Stand(proxy, recorder, store, made, client)
        store.close()


def tokens_of(store: Store, tenant: str) -> dict[str, str]:
    """A token of each kind, as it is sent."""
    now = datetime.now(UTC)
    good = provision(store, tenant)
    revoked = store.issue_token(tenant, now=now)
    store.revoke_token(revoked.token.id, now=now)
    soon = now - timedelta(hours=1)
    expired = store.issue_token(tenant, now=soon, expires=soon + timedelta(minutes=1))
    changed = good[:-1] + ("A" if good[-1] != "A" else "B")
    return {
        "valid": f"Bearer {good}",
        "revoked": f"Bearer {revoked.text}",
        "expired": f"Bearer {expired.text}",
        "malformed": f"Bearer {changed}",
        "nonsense": "Bearer '; drop table tokens;--",
        "empty": "Bearer",
        "scheme": f"Basic {good}",
        "bare": good,
    }


def body_of(response: httpx.Response) -> dict[str, Any]:
    """A problem without its correlation id."""
    found: dict[str, Any] = response.json()
    del found["correlation_id"]
    return found


def other_than(tenant: str) -> str:
    """The other tenant."""
    return {"acme": "other", "other": "acme"}[tenant]


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
def test_no_token_that_is_not_good_asks_the_fleet_anything(route: APIRoute, stand: Stand) -> None:
    """TEN-01, TEN-02, TEN-03, TEN-05: one refusal for all of them, whatever the id."""
    stand.recorder.reset()
    stand.renew("acme", IDS["own"])
    bodies = set()
    for tenant, vm in product(("acme", "other"), IDS.values()):
        kinds = stand.tokens[tenant].items()
        for authorization in [None, *(text for kind, text in kinds if kind != "valid")]:
            refused = stand.ask(route, vm, authorization)
            assert refused.status_code == 401, (authorization, refused.text)
            assert refused.headers["www-authenticate"] == "Bearer"
            bodies.add(json.dumps(body_of(refused), sort_keys=True))
    assert len(bodies) == 1
    assert stand.recorder.seen == []


@pytest.mark.parametrize("route", ABOUT_ONE, ids=lambda route: route.name)
@pytest.mark.parametrize("tenant", ["acme", "other"])
def test_a_vm_of_others_is_like_one_that_never_was(
    route: APIRoute, tenant: str, stand: Stand
) -> None:
    """TEN-02, TEN-05, TEN-06: the same answer for foreign, unknown, deleted; nothing is asked."""
    stand.recorder.reset()
    stand.renew(other_than(tenant), IDS["foreign"])
    stand.renew(tenant, IDS["deleted"])
    begun = stand.store.begin_removal(IDS["deleted"], lease_seconds=9, now=datetime.now(UTC))
    stand.store.end_removal(begun, gone=True, now=datetime.now(UTC))
    token = stand.tokens[tenant]["valid"]
    answers = [stand.ask(route, IDS[kind], token) for kind in ("foreign", "unknown", "deleted")]
    expected = 403 if OPERATOR in route.tags else 404
    assert [answer.status_code for answer in answers] == [expected] * 3, answers[0].text
    texts = {
        json.dumps(body_of(answer), sort_keys=True).replace(vm, "ID")
        for answer, vm in zip(
            answers, (IDS["foreign"], IDS["unknown"], IDS["deleted"]), strict=True
        )
    }
    assert len(texts) == 1
    assert stand.recorder.seen == []
    begun = stand.store.begin_removal(IDS["foreign"], lease_seconds=9, now=datetime.now(UTC))
    stand.store.end_removal(begun, gone=True, now=datetime.now(UTC))


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
@pytest.mark.parametrize("tenant", ["acme", "other"])
def test_a_tenants_own_is_answered_without_a_word_of_its_node(
    route: APIRoute, tenant: str, stand: Stand
) -> None:
    """TEN-01, INV-03: what is one's own is done, and the answer names no node and no address."""
    stand.recorder.reset()
    vm = f"vm-own-{tenant}"
    stand.renew(tenant, vm)
    answer = stand.ask(route, vm, stand.tokens[tenant]["valid"])
    if OPERATOR in route.tags:
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_refused")
        assert stand.recorder.seen == []
        return
    assert answer.is_success, answer.text
    assert bool(stand.recorder.seen) == (route.name != "quota")
    for word in (NODE, "10.8.0.2", "10.9.2.17", "20001", "weight", "minimum"):
        assert word not in answer.text, answer.text


@pytest.mark.parametrize("route", ABOUT_ONE, ids=lambda route: route.name)
def test_an_operators_token_reaches_every_tenants_vm(route: APIRoute, stand: Stand) -> None:
    """TEN-05: and it alone may move one."""
    stand.recorder.reset()
    stand.renew("acme", "vm-own-acme")
    text = stand.store.issue_token(None, now=datetime.now(UTC)).text
    answer = stand.ask(route, "vm-own-acme", f"Bearer {text}")
    assert answer.is_success, answer.text
    assert stand.recorder.seen
    assert stand.ask(route, IDS["unknown"], f"Bearer {text}").status_code == 404
    stand.recorder.vms.clear()
    stand.recorder.refuse = PpnError(f"{NODE} is away", code="node_unreachable")
    stand.renew("acme", "vm-own-acme")
    if next(iter(route.methods or ())) != "GET":
        assert NODE in stand.ask(route, "vm-own-acme", f"Bearer {text}").text


def test_an_operators_token_speaks_for_no_tenant(stand: Stand) -> None:
    """TEN-04: nothing is made that would be nobody's."""
    stand.recorder.reset()
    text = stand.store.issue_token(None, now=datetime.now(UTC)).text
    by_name = {route.name: route for route in OTHERS}
    for name in ("create", "quota"):
        refused = stand.ask(by_name[name], "", f"Bearer {text}")
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_refused")
    assert stand.recorder.seen == []
    assert stand.ask(by_name["list_vms"], "", f"Bearer {text}").is_success


@pytest.mark.parametrize("field", ["owner", "tenant", "tenant_id"])
def test_a_body_that_names_a_tenant_is_refused(stand: Stand, field: str) -> None:
    """TEN-04: the tenant comes from the token and from nowhere else."""
    stand.recorder.reset()
    headers = {"Authorization": stand.tokens["acme"]["valid"]}
    for named in ("acme", "other"):
        refused = stand.client.post("/v1/vms", json={**ORDER, field: named}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "request_invalid")
    assert stand.recorder.seen == []


def test_the_tenant_of_every_record_is_the_tokens(stand: Stand) -> None:
    """TEN-04: in the order, the store and the audit log, also after a restart of the proxy."""
    stand.recorder.reset()
    headers = {"Authorization": stand.tokens["other"]["valid"]}
    made = stand.client.post("/v1/vms", json=ORDER, headers=headers)
    vm = made.json()["vm"]["id"]
    assert made.status_code == 201 and made.json()["vm"]["owner"] == "other"
    assert stand.recorder.seen[0].body["owner"] == "other"
    assert stand.store.allocation("other", vm).tenant == "other"
    stand.proxy.end()
    stand.proxy.start_again()
    listed = stand.client.get("/v1/vms", headers=headers).json()
    assert vm in {one["vm"]["id"] for one in listed}
    entries = [entry for entry in stand.proxy.entries() if entry.vm == vm]
    assert {(entry.tenant, entry.outcome) for entry in entries} == {
        ("other", "allowed"),
        ("other", "done"),
    }
    assert (
        vm
        not in stand.client.get(
            "/v1/vms", headers={"Authorization": stand.tokens["acme"]["valid"]}
        ).text
    )


@pytest.mark.parametrize("path", ["/v1/allocations", "/metrics"])
def test_what_is_for_controllers_is_for_their_addresses(stand: Stand, path: str) -> None:
    """REC-02: whatever the token; and a controller needs none."""
    for authorization in (None, *stand.tokens["acme"].values()):
        headers = {} if authorization is None else {"Authorization": authorization}
        refused = stand.client.get(path, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "source_wrong")
    stand.renew("acme", "vm-allocated")
    with stand.proxy.client(source=stand.recorder.address) as controller:
        answer = controller.get(path)
    assert answer.is_success
    if path == "/metrics":
        for name in ("tenant_requests_total", "tenant_audit_owed 0.0", "audit_published"):
            assert f"ppn_{name}" in answer.text
    if path == "/v1/allocations":
        (found,) = [one for one in answer.json()["allocations"] if one["vm"] == "vm-allocated"]
        assert (found["tenant"], found["memory_mib"], found["state"]) == ("acme", 256, "settled")
