"""The proxy's description, its route table, and what each answer may say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from ppn.errors import PpnError, Refusal
from ppn.tenant.api import OWN_PATHS, check_source, own_router, router
from ppn.tenant.guard import OPERATOR, TenantRoute
from ppn.tenant.openapi import bare_app, document, guarded_routes
from ppn.tenant.view import PLAIN, TEXTS, own_vm, tenant_timeline, told
from ppn.wire.problems import NoCapacity, NodeRefusal, problem_of
from ppn.wire.tenant import TenantOrder
from ppn.wire.web import Edge

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi" / "tenant-proxy.json"
RENEW = "run `python -m tests.unit.tenant_proxy.test_api` and commit what it writes"
NODE = "node-with-a-name"
# What would tell a tenant where its VM is, or how its node shares itself out.
TELLING = {"node", "nodes", "address", "host", "weight", "minimum_mib", "current_mib", "drives"}
TELLING |= {"uuid", "problems", "message", "accelerator", "actions", "warnings", "session"}


def test_the_committed_description_is_current() -> None:
    """NP-05's rule for this service."""
    assert COMMITTED.read_text(encoding="utf-8") == document(), RENEW


def test_every_route_is_behind_the_guard() -> None:
    """TEN-06: but for those that are for the pool's own addresses, and the description."""
    described = set(bare_app().openapi()["paths"])
    assert {route.path for route in guarded_routes()} | OWN_PATHS == described | {"/metrics"}
    assert all(isinstance(route, TenantRoute) for route in router.routes)
    assert {route.path for route in own_router.routes if isinstance(route, APIRoute)} == OWN_PATHS
    assert len(guarded_routes()) == len(router.routes) >= 13


def test_routes_with_a_vm_name_it_as_the_guard_reads_it() -> None:
    """TEN-06: a path with another word for it would pass the guard by."""
    for route in guarded_routes():
        if route.path.startswith("/v1/vms/"):
            assert route.path.startswith("/v1/vms/{vm}"), route.path
            assert "vm" in route.param_convertors


def test_only_moving_is_for_operators() -> None:
    """TEN-05: nothing else of the tenant's API needs to know a node."""
    assert [route.name for route in guarded_routes() if OPERATOR in route.tags] == [
        "move",
        "show_move",
    ]


def test_no_order_can_name_a_tenant() -> None:
    """TEN-04."""
    assert not {"owner", "tenant"} & set(TenantOrder.model_fields)
    assert TenantOrder.model_config["extra"] == "forbid"


def fields(model: type[BaseModel]) -> Iterator[str]:
    """Every field of a model and of its parts."""
    schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {})


def test_no_answer_has_a_field_that_tells_of_a_node() -> None:
    """INV-03: whatever a controller answers, only these fields go on."""
    models = {
        model
        for route in guarded_routes()
        if OPERATOR not in route.tags
        for model in _models(route.response_model)
    }
    assert len(models) >= 5
    for model in models:
        assert not TELLING & set(fields(model)), model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for one in getattr(annotation, "__args__", ()) if issubclass(one, BaseModel)]


@pytest.mark.parametrize(
    "error",
    [
        *(Refusal(f"at {NODE}", code=code, constraint="x", wanted=1, free=7) for code in TEXTS),
        *(PpnError(f"at {NODE}", code=code, hint=NODE) for code in ("libvirt_failed", "x")),
        Refusal(f"at {NODE}", code="memory_exhausted", constraint="pool memory", free=4242),
        NoCapacity("none", [NodeRefusal(node=NODE, code="image_unknown", message=NODE, free=77)]),
    ],
    ids=lambda error: error.code,
)
def test_no_refusal_of_the_pool_names_a_node_or_its_room(error: PpnError) -> None:
    """INV-03: its code stays, so that a client can act on it."""
    said = told(error)
    text = problem_of(said).model_dump_json(exclude_defaults=True)
    assert said.code == error.code
    for word in (NODE, "4242", "77", '"free":'):
        assert word not in text
    assert isinstance(said, Refusal) == isinstance(error, Refusal)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("order_elsewhere", "same Idempotency-Key"),
        ("vm_undecided", "same Idempotency-Key"),
        ("vm_moving", "moving the VM"),
    ],
)
def test_what_passes_by_itself_says_how(code: str, word: str) -> None:
    """TEN-09: an order that is repeated under another key would be another VM."""
    assert word in told(Refusal(f"at {NODE}", code=code, constraint="x")).message


def test_a_refusal_of_its_own_is_told_as_it_is() -> None:
    """TEN-08: with its numbers."""
    over = Refusal("over", code="quota_exceeded", constraint="x", wanted=2, free=1, unit="MiB")
    assert told(over) is over
    assert not PLAIN & TEXTS.keys()


def test_why_no_node_has_room_is_told_without_the_nodes() -> None:
    """INV-03."""
    reasons = [
        NodeRefusal(node=name, code=code, message="")
        for name, code in (("a", "image_unknown"), ("b", "vcpus_odd"), ("c", "vcpus_odd"))
    ]
    assert told(NoCapacity("none", reasons)).message.endswith(": image_unknown, vcpus_odd")


def test_a_vm_is_told_without_its_node() -> None:
    """INV-03: by value, too."""
    report = {
        "id": "vm-a",
        "owner": "acme",
        "state": "running",
        "vcpus": 2,
        "memory_mib": 256,
        "minimum_mib": 128,
        "weight": 300,
        "address": "10.9.2.7",
        "ports": [{"guest": 80, "protocol": "tcp", "host": 20001}],
        "problems": [NODE],
    }
    text = own_vm({"vm": report, "node": NODE, "actions": [NODE]}).model_dump_json()
    assert "running" in text and '"guest":80' in text
    for word in (NODE, "10.9.2.7", "20001", "300", "128"):
        assert word not in text


def test_a_timeline_is_told_without_its_words() -> None:
    """INV-03."""
    operation = {
        "operation": "spawn",
        "correlation_id": "c0ffee00-1",
        "began": "2026-01-01T00:00:00+00:00",
        "outcome": "failed",
        "code": "libvirt_failed",
        "message": NODE,
        "steps": [{"name": "admit", "at_seconds": 0.0, "seconds": 0.5}],
    }
    answer = {"vm": "vm-a", "operations": [operation], "node": NODE}
    text = tenant_timeline(answer).model_dump_json()
    assert NODE not in text and "admit" in text and "libvirt_failed" in text


@pytest.mark.parametrize(
    ("source", "path", "allowed"),
    [
        ("10.8.0.1", "/metrics", True),
        ("10.8.0.1", "/v1/allocations", True),
        ("10.8.0.9", "/v1/allocations", False),
        ("", "/metrics", False),
        ("10.8.0.9", "/v1/vms", True),
    ],
)
def test_the_pools_own_paths_are_for_its_addresses(source: str, path: str, allowed: bool) -> None:
    """REC-02."""
    own = frozenset({"10.8.0.1"})
    if allowed:
        check_source(own, source, path)
        return
    with pytest.raises(Refusal) as caught:
        check_source(own, source, path)
    assert caught.value.code == "source_wrong"


@pytest.mark.parametrize("path", sorted(OWN_PATHS))
@pytest.mark.parametrize("end", ["", "%0A", "%0a%0A"])
def test_the_pools_own_paths_have_one_spelling(path: str, end: str) -> None:
    """TEN-05: a route's pattern takes a line feed at the end; all tenants' VMs are behind it."""
    edge = Edge(bare_app(), lambda source, path: check_source(frozenset(), source, path))

    async def story() -> httpx.Response:
        transport = httpx.ASGITransport(edge, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path + end)

    answer = asyncio.run(story())
    assert answer.json()["code"] == ("route_unknown" if end else "source_wrong")


if __name__ == "__main__":
    COMMITTED.write_text(document(), encoding="utf-8")
