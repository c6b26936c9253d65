"""What a change leaves in the store, in the audit log and in the pool, however it ends."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ppn.errors import PpnError, Refusal
from ppn.fleet.identity import vm_id
from ppn.tenant.model import NOTHING
from ppn.wire.problems import NoCapacity, NodeRefusal
from tests.integration.proxy.parts import wait_for
from tests.integration.tenant_proxy.parts import ONE, ORDER, context_of, provision
from tests.integration.tenant_proxy.recorder import NODE
from tests.integration.tenant_proxy.stand import CEILING, Stand


def test_a_vm_from_order_to_removal(stand: Stand) -> None:
    """TEN-01, TEN-07, TEN-08, TEN-10: each change one intent and one outcome that belongs to it."""
    made = stand.create("k")
    vm = vm_id(stand.tenant, "k")
    assert (made.status_code, made.json()["vm"]["id"]) == (201, vm)
    assert made.headers["location"] == f"/v1/vms/{vm}"
    assert stand.used == ONE
    assert stand.create("k").status_code == 200
    assert stand.used == ONE and len(stand.recorder.asked("POST")) == 1
    assert stand.ask("POST", f"/vms/{vm}/disks", json={"name": "data", "size_gib": 5}).is_success
    assert stand.used.disk_gib == 6
    assert stand.ask("PATCH", f"/vms/{vm}", json={"memory_mib": 512}).is_success
    quota = stand.ask("GET", "/quota").json()
    assert quota["used"] == {"memory_mib": 512, "vcpus": 2, "disk_gib": 6, "vms": 1}
    assert quota["ceiling"]["vms"] == 3
    kept = stand.ask("DELETE", f"/vms/{vm}/disks/data")
    assert (kept.status_code, kept.json()["code"]) == (409, "disk_kept")
    path = f"/vms/{vm}/disks/data"
    assert stand.ask("DELETE", path, params={"discard": "true"}).is_success
    assert stand.used.disk_gib == 1
    assert stand.ask("DELETE", f"/vms/{vm}").json() == {"id": vm}
    assert stand.used == NOTHING
    assert stand.ask("GET", f"/vms/{vm}").status_code == 404
    operations = ["create", "create", "attach", "resize"]
    expected = [(name, what, "") for name in operations for what in ("allowed", "done")]
    expected += [("detach", "refused", "disk_kept")]
    expected += [(name, what, "") for name in ("detach", "destroy") for what in ("allowed", "done")]
    assert stand.trail() == expected
    entries = stand.proxy.entries()
    for index, entry in enumerate(entries):
        if entry.of is not None:
            assert (entries[entry.of].outcome, entries[entry.of].vm) == ("allowed", entry.vm)
            assert entry.of < index


def test_the_ceiling_is_met_to_the_figure_and_not_passed(stand: Stand) -> None:
    """TEN-02, TEN-08: equal is accepted; one more is refused with numbers, and not asked for."""
    over = stand.create("over", memory_mib=CEILING.memory_mib + 1)
    problem = over.json()
    assert (over.status_code, problem["code"]) == (403, "quota_exceeded")
    assert (problem["wanted"], problem["free"], problem["unit"]) == (1025, 1024, "MiB")
    assert stand.recorder.seen == []
    assert stand.trail() == [("create", "refused", "quota_exceeded")]
    assert stand.create("equal", memory_mib=CEILING.memory_mib).status_code == 201
    vm = vm_id(stand.tenant, "equal")
    stand.recorder.seen.clear()
    for method, path, body in (
        ("PATCH", f"/vms/{vm}", {"vcpus": 9}),
        ("POST", f"/vms/{vm}/disks", {"name": "data", "size_gib": 20}),
    ):
        refused = stand.ask(method, path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert stand.recorder.seen == []


@pytest.mark.parametrize("figure", [0, -1, 2**63, 1.5, "256", None, True])
def test_figures_that_are_none_are_refused(stand: Stand, figure: object) -> None:
    """TEN-08."""
    for name in ("memory_mib", "vcpus", "disk_gib"):
        assert stand.create("k", **{name: figure}).status_code == 400
    assert stand.recorder.seen == [] and stand.used == NOTHING
    assert {code for _, _, code in stand.trail()} == {"request_invalid"}
    assert len(stand.trail()) == 3


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            NoCapacity("no node", [NodeRefusal(node=NODE, code="memory_exhausted", message=NODE)]),
            409,
            "no_capacity",
        ),
        (Refusal(f"{NODE} wakes", code="warming_up", constraint="x"), 503, "warming_up"),
        (Refusal(f"bad on {NODE}", code="vcpus_odd", constraint="x"), 409, "vcpus_odd"),
        (PpnError(f"{NODE} is away", code="node_unreachable"), 503, "node_unreachable"),
    ],
)
def test_what_the_pool_surely_did_not_make_is_given_back(
    stand: Stand, error: PpnError, status: int, code: str
) -> None:
    """TEN-08, INV-03: and the refusal names no node."""
    stand.recorder.refuse = error
    refused = stand.create("k")
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert NODE not in refused.text
    assert stand.used == NOTHING
    assert stand.trail() == [("create", "allowed", ""), ("create", "failed", code)]


@pytest.mark.fault(
    "a controller that carries an order out and does not answer",
    "the tenant is told that it is not known; what is taken stays taken until the sweeper knows",
)
def test_what_is_not_known_stays_taken(stand: Stand) -> None:
    """TEN-08: until the same order is made again, and finds what it made."""
    stand.recorder.drop = 1
    open_ = stand.create("k")
    assert (open_.status_code, open_.json()["code"]) == (504, "outcome_unknown")
    assert stand.used == ONE
    listed = stand.ask("GET", "/vms").json()
    assert [one["vm"]["id"] for one in listed] == [vm_id(stand.tenant, "k")]
    assert stand.create("k").is_success
    assert stand.used == ONE
    # The first order might still be carried out: it is not removed before that is impossible.
    busy = stand.ask("DELETE", f"/vms/{vm_id(stand.tenant, 'k')}")
    assert (busy.status_code, busy.json()["code"]) == (409, "vm_busy")


def test_a_removal_that_is_not_known_stays_taken(stand: Stand) -> None:
    """TEN-08: until it is asked for again, and nothing is found."""
    assert stand.create("k").is_success
    vm = vm_id(stand.tenant, "k")
    stand.recorder.drop = 1
    assert stand.ask("DELETE", f"/vms/{vm}").status_code == 504
    assert stand.used == ONE and vm not in stand.recorder.vms
    assert stand.ask("DELETE", f"/vms/{vm}").is_success
    assert stand.used == NOTHING


@pytest.mark.fault(
    "a controller carries a removal out late, after the tenant made the VM anew under its key",
    "the new VM stays, and takes its part of the ceiling",
)
def test_a_removal_that_comes_late_spares_the_next_vm_of_its_key(stand: Stand) -> None:
    """TEN-08: each removal names the very VM that it was begun for."""
    assert stand.create("k").is_success
    vm = vm_id(stand.tenant, "k")

    def meanwhile() -> None:
        stand.recorder.at_removal = lambda: None
        assert stand.ask("DELETE", f"/vms/{vm}").is_success
        assert stand.create("k").status_code == 201

    stand.recorder.at_removal = meanwhile
    late = stand.ask("DELETE", f"/vms/{vm}")
    assert (late.status_code, late.json()["code"]) == (412, "vm_replaced")
    assert NODE not in late.text
    assert vm in stand.recorder.vms and stand.used == ONE
    assert stand.store.allocation(stand.tenant, vm).state == "settled"


def test_a_removal_that_was_overtaken_looks_at_no_later_vm(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-08: what it finds once it was ended by another request is not what it is about."""
    assert stand.create("k").is_success
    vm = vm_id(stand.tenant, "k")
    show, found = stand.recorder.change, threading.Event()

    def change(method: str, vm: str, what: list[str], body: Any) -> tuple[int, Any]:
        if method == "GET" and not found.is_set():
            found.set()
            assert stand.ask("DELETE", f"/vms/{vm}").is_success
            assert stand.create("k").status_code == 201
        return show(method, vm, what, body)

    with monkeypatch.context() as patched:
        patched.setattr(stand.recorder, "change", change)
        assert stand.ask("DELETE", f"/vms/{vm}").is_success
    assert found.is_set() and vm in stand.recorder.vms and stand.used == ONE


def test_a_vm_that_the_pool_lost_is_not_made_again_unseen(stand: Stand) -> None:
    """TEN-08: its size may have changed since, and the ceiling is judged once for each order."""
    assert stand.create("k").status_code == 201
    vm = vm_id(stand.tenant, "k")
    del stand.recorder.vms[vm]
    lost = stand.create("k")
    assert (lost.status_code, lost.json()["code"]) == (409, "vm_lost")
    assert stand.ask("GET", f"/vms/{vm}").json()["vm"]["state"] == "unknown"
    assert len(stand.recorder.asked("POST")) == 1
    assert stand.ask("DELETE", f"/vms/{vm}").is_success
    assert stand.create("k").status_code == 201


def test_a_client_that_goes_away_changes_nothing(stand: Stand) -> None:
    """TEN-10: the VM is made, what it takes is settled, and the outcome is written."""
    stand.recorder.stuck = {stand.tenant}
    body = json.dumps(ORDER)
    lines = [
        "POST /v1/vms HTTP/1.1",
        "Host: proxy",
        f"Authorization: Bearer {stand.token}",
        "Idempotency-Key: k",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
        "",
        body,
    ]
    address = (stand.proxy.address, stand.proxy.port)
    with socket.create_connection(address, timeout=30) as plain:
        trusting = context_of(stand.proxy.authority)
        with trusting.wrap_socket(plain, server_hostname=stand.proxy.address) as line:
            line.sendall("\r\n".join(lines).encode())
            wait_for(lambda: bool(stand.recorder.seen), "the order")
    stand.recorder.unstick()
    wait_for(lambda: ("create", "done", "") in stand.trail(), "the outcome")
    assert stand.store.allocation(stand.tenant, vm_id(stand.tenant, "k")).state == "settled"


def test_one_tenant_stuck_is_no_other_tenants_concern(stand: Stand) -> None:
    """TEN-09: a second tenant finishes while the first is stuck at a slow controller."""
    other = provision(stand.store, f"{stand.tenant}-2")
    most = {"memory_mib": 1 << 20, "vcpus": 1 << 10, "disk_gib": 1 << 10, "vms": 1 << 10}
    stand.store.set_ceiling(stand.tenant, most)
    stand.recorder.stuck = {stand.tenant}
    with ThreadPoolExecutor(40) as pool, stand.proxy.client(stand.token) as client:
        going = [pool.submit(client.post, "/v1/vms", json=ORDER) for _ in range(40)]
        wait_for(lambda: len(stand.recorder.seen) >= 16, "the first tenant's requests")
        with stand.proxy.client(other) as second:
            for _ in range(5):
                assert second.post("/v1/vms", json=ORDER).status_code == 201
            assert len(second.get("/v1/vms").json()) == 5
        # The first tenant's own questions still have their turn.
        assert client.get("/v1/quota").is_success
        assert not any(one.done() for one in going)
        stand.recorder.unstick()
        assert {one.result(60).status_code for one in going} == {201}
