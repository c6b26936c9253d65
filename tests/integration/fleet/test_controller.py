"""What a caller of the controller sees, and what becomes of VMs when things go wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from ppn.run import run
from tests.integration.fleet.edges import send
from tests.integration.fleet.node import Node
from tests.integration.fleet.parts import ORDER, Pool, pool
from tests.integration.host.node import PPN
from tests.integration.proxy.parts import replace, wait_for
from tests.unit.host.builders import UUID


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two nodes of four CPUs, one of them reserved, and one controller."""
    nodes = [Node("a", "127.0.1.1", vcpus=4), Node("b", "127.0.1.2", vcpus=4, reserved=True)]
    with pool(tmp_path_factory.mktemp("fleet"), nodes) as made:
        yield made


@pytest.fixture
def small(started: Pool) -> Pool:
    """The same pool, with nothing in it and nothing told."""
    started.reset()
    return started


def test_a_vm_from_order_to_removal(small: Pool) -> None:
    """FLEET-01, FLEET-07, FLEET-10, FLEET-17, FLEET-18."""
    made = small.first.create("key-1", label="web")
    assert made.status_code == 201, made.text
    vm = made.json()["vm"]["id"]
    assert (made.json()["node"], made.json()["vm"]["state"]) == ("a", "running")
    assert made.headers["location"] == f"/v1/vms/{vm}"
    spawns = [seen for seen in small.nodes[0].seen if seen["body"]["operation"] == "spawn"]
    assert len(spawns) == 1 and not small.nodes[1].seen
    assert spawns[0]["correlation_id"] == made.headers["ppn-correlation-id"]
    again = small.first.create("key-1", label="web")
    assert (again.status_code, again.json()["vm"]["id"]) == (200, vm)
    assert small.first.create("key-1", image="other").json()["code"] == "order_differs"
    other = small.first.create(owner="other").json()["vm"]["id"]
    assert set(small.first.vms(owner="acme")) == {vm} and set(small.first.vms()) == {vm, other}
    with small.first.client() as client:
        gone = client.delete(f"/v1/vms/{vm}")
        assert (gone.status_code, gone.json()["nodes"]) == (200, ["a"])
        assert client.delete(f"/v1/vms/{vm}").json()["code"] == "vm_unknown"
        assert client.get("/v1/fleet").json()["vms"] == 1
    assert set(small.held()) == {other}


def test_reserved_nodes_come_last_and_a_full_pool_says_why(small: Pool) -> None:
    """FLEET-03, FLEET-04, FLEET-05, FLEET-14."""
    assert [small.first.create().json()["node"] for _ in range(4)] == ["a", "a", "b", "b"]
    refused = small.first.create()
    assert (refused.status_code, refused.json()["code"]) == (409, "no_capacity")
    reasons = {reason["node"]: reason for reason in refused.json()["nodes"]}
    assert {name: reason["free"] for name, reason in reasons.items()} == {"a": 0, "b": 0}
    assert {reason["wanted"] for reason in reasons.values()} == {2}


@pytest.mark.fault(
    "a node refuses what the controller placed there",
    "the next candidate is asked; when none is left each node's reason is told",
)
def test_a_node_that_refuses_is_not_the_end(small: Pool) -> None:
    """HOST-12: the node has the final word, and the controller tries the next one."""
    small.nodes[0].refuse = "memory_not_free"
    assert small.first.create().json()["node"] == "b"
    small.nodes[1].refuse = "disk_exhausted"
    refused = small.first.create().json()
    codes = {reason["node"]: reason["code"] for reason in refused["nodes"]}
    assert codes == {"a": "memory_not_free", "b": "disk_exhausted"}
    with small.first.client() as client:
        assert client.get("/v1/fleet").json()["free_vcpus"] == 6


def test_a_batch_is_all_or_nothing_unless_asked_otherwise(small: Pool) -> None:
    """FLEET-12."""
    with small.first.client() as client:
        whole = client.post("/v1/batches", json={"vms": [ORDER] * 4})
        assert whole.status_code == 201, whole.text
        ids = [item["id"] for item in whole.json()["items"]]
        assert len(set(ids)) == 4 and set(small.held()) == set(ids)
        for vm in ids:
            assert client.delete(f"/v1/vms/{vm}").status_code == 200
        too_much = client.post("/v1/batches", json={"vms": [ORDER] * 5})
        assert (too_much.status_code, small.held()) == (409, {})
        small.nodes[1].refuse = "memory_not_free"
        refused = client.post("/v1/batches", json={"vms": [ORDER] * 3})
        assert refused.json()["code"] == "no_capacity", refused.text
        assert small.held() == {}
        each = client.post("/v1/batches", json={"vms": [ORDER] * 3, "per_item": True}).json()
        assert sorted(item["placed"] is not None for item in each["items"]) == [False, True, True]
        assert len(small.held()) == 2


@pytest.mark.fault(
    "the answer to a spawn is lost",
    "the same node is asked again, no other; the VM is found made",
)
def test_a_lost_answer_is_neither_a_lost_nor_a_doubled_vm(small: Pool) -> None:
    """OPS-03: asked again on the same node, never placed on another."""
    small.nodes[0].lose_answers = 1
    made = small.first.create("key-1")
    assert (made.status_code, made.json()["node"]) == (201, "a")
    assert small.held() == {made.json()["vm"]["id"]: ["a"]}


@pytest.mark.fault(
    "an agent restarts while a spawn's answer is open",
    "its ticket is void, so the node is asked what became of the VM before another is tried",
)
def test_an_agent_that_restarts_in_the_midst_is_asked_what_became_of_it(small: Pool) -> None:
    """The VM was made, the answer lost, and the ticket's session is over."""
    small.nodes[0].lose_answers = 1
    small.nodes[0].delay = 0.3
    small.nodes[0].silent = True
    with ThreadPoolExecutor() as workers:
        asked = workers.submit(small.first.create, "key-1")
        wait_for(lambda: bool(small.nodes[0].vms), "the spawn")
        small.nodes[0].restart()
        made = asked.result(60)
    assert (made.status_code, made.json()["node"]) == (201, "a"), made.text
    assert small.held() == {made.json()["vm"]["id"]: ["a"]}


@pytest.mark.fault(
    "a heartbeat from another node's address",
    "403, and what is known of the node stays",
)
def test_heartbeats_count_from_their_own_address_alone(small: Pool) -> None:
    """FLEET-08, FLEET-16: no other credential; and no node may use the API."""
    url = small.first.url
    forged = {**small.nodes[0].heartbeat(), "sequence": 10**6, "reserved": True}
    assert send("127.0.1.2", url, forged) == 403
    assert send("127.0.9.9", url, forged) == 403
    with small.first.client() as client:
        assert client.get("/v1/nodes/a").json()["reserved"] is False
    assert send("127.0.1.1", url, {**forged, "sequence": "7"}) == 400
    assert send("127.0.1.1", url, forged) == 204
    with small.first.client() as client:
        assert client.get("/v1/nodes/a").json()["reserved"] is True
    with small.first.client("127.0.1.1") as node:
        refused = node.get("/v1/vms")
    assert (refused.status_code, refused.json()["code"]) == (403, "source_wrong")


def test_metrics_and_errors_speak_the_standards(small: Pool) -> None:
    """NP-05's rule for this service: problem bodies with stable codes, Prometheus text."""
    small.first.create()
    with small.first.client() as client:
        text = client.get("/metrics").text
        assert 'ppn_fleet_orders_total{outcome="made"}' in text
        assert "ppn_fleet_vms 1.0" in text and 'ppn_fleet_heartbeat_age_seconds{node="a"}' in text
        unknown = client.post("/v1/vms", json={**ORDER, "policy": "best"})
        assert (unknown.status_code, unknown.json()["code"]) == (400, "request_invalid")
        assert unknown.headers["content-type"] == "application/problem+json"
        assert client.get("/v2/vms").json()["code"] == "route_unknown"
        assert client.put("/v1/vms").json()["code"] == "method_unknown"
        long = client.post("/v1/vms", content=b" " * (5 << 20))
        assert (long.status_code, long.json()["code"]) == (413, "body_too_long")


def test_the_command_does_what_the_api_does(small: Pool) -> None:
    """OPS-04: every verb of `ppn vm`, for people and for programs."""

    def ppn(*words: str, code: int = 0) -> str:
        given = {**os.environ, "PPN_CONTROLLER": small.first.url}
        return run([PPN, "vm", *words], timeout=300, env=given, accept=(code,)).stdout

    made = ppn("create", "tiny", "--memory-mib", "256", "--key", "k", "--json")
    vm = json.loads(made)["vm"]["id"]
    assert vm in ppn("create", "tiny", "--memory-mib", "256", "--key", "k")
    assert vm in ppn("list") and vm in ppn("show", vm)
    assert [one["vm"]["id"] for one in json.loads(ppn("list", "--json"))] == [vm]
    for verb in ("stop", "start"):
        assert vm in ppn(verb, vm)
        assert json.loads(ppn(verb, vm, "--json"))["vm"]["id"] == vm
    uuid = json.loads(ppn("show", vm, "--json"))["vm"]["uuid"]
    ppn("destroy", vm, "--uuid", UUID, code=3)
    assert ppn("destroy", vm, "--uuid", uuid) == f"{vm} is gone from a\n"
    ppn("show", vm, code=4)
    ppn("create", "tiny", "--vcpus", "6", code=3)


@pytest.mark.fault(
    "an agent restarts before a change of a VM is asked for",
    "its old ticket is void; the controller asks again as soon as it hears the new session",
)
def test_a_change_right_after_a_restart_of_the_agent(small: Pool) -> None:
    """HOST-02: nothing was done, so that asking again is safe; the caller only waits."""
    node = small.nodes[0]
    vm = small.first.create("key-1").json()["vm"]["id"]
    for verb, path in (("POST", f"{vm}/stop"), ("POST", f"{vm}/start"), ("DELETE", vm)):
        node.silent = True
        node.restart()
        with ThreadPoolExecutor() as workers, small.first.client() as client:
            before = node.changes()
            asked = workers.submit(client.request, verb, f"/v1/vms/{path}")
            wait_for(partial(node.has_seen_more, before), "the first attempt")
            node.silent = False
            done = asked.result(60)
        assert done.status_code == 200, done.text
        assert node.changes() == before + 2
    assert not small.held()


@pytest.mark.fault(
    "a controller's certificate is damaged or gone",
    "it goes on with the one it has and says so, until a sound one is there",
)
def test_a_damaged_certificate_changes_nothing(small: Pool) -> None:
    """NP-01's rule for the callers: what is in force stays so."""
    path = small.first.files.certificate
    sound = path.read_text()
    assert small.first.create().status_code == 201
    for content in ("half a certif", None):
        path.unlink()
        if content is not None:
            replace(path, content)
        before = len(small.first.lines("certificate not taken over"))
        for _ in range(2):
            made = small.first.create()
            assert made.status_code == 201, made.text
            with small.first.client() as client:
                assert client.delete(f"/v1/vms/{made.json()['vm']['id']}").is_success
        assert len(small.first.lines("certificate not taken over")) == before + 1
    replace(path, sound)
    assert small.first.create().status_code == 201
    assert small.first.lines("certificate not taken over")[-1]["code"] == "tls_unusable"
