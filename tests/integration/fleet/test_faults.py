"""Controllers that die, race and disagree: nothing is lost, doubled or overcommitted."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from ppn.fleet.settings import STALE_SECONDS
from tests.integration.fleet.edges import succeeds
from tests.integration.fleet.node import Node
from tests.integration.fleet.parts import ORDER, Controller, Pool, pool
from tests.integration.proxy.parts import wait_for

RACES = 200
# Of a controller that soon gives up on a silent node; the others' heartbeats come every 0.5 s.
IMPATIENT_SECONDS = 10.0


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Three nodes and two controllers."""
    nodes = [Node(name, f"127.0.3.{at}", vcpus=8) for at, name in enumerate("abc", start=1)]
    with pool(tmp_path_factory.mktemp("faults"), nodes, controllers=2) as made:
        yield made


@pytest.fixture
def wide(started: Pool) -> Pool:
    """The same pool, with nothing in it and nothing told."""
    started.reset()
    return started


def attempt(controller: Controller, key: str, **order: object) -> httpx.Response | None:
    """Ask for a VM; None when the controller died over it."""
    try:
        return controller.create(key, **order)
    except httpx.HTTPError:
        return None


def warm(controller: Controller) -> bool:
    """Whether a controller has heard every node."""
    with controller.client() as client:
        return bool(client.get("/v1/fleet").json()["live"] == 3)


@pytest.mark.fault(
    "kill -9 of a controller in a storm of orders",
    "it rebuilds its view from heartbeats; the same orders again give the same VMs, none twice",
)
def test_killed_controller_loses_and_doubles_nothing(wide: Pool) -> None:
    """FLEET-02, FLEET-19, OPS-03: kill -9 in a storm; the same orders again give the same VMs."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for node in wide.nodes:
        node.delay = 0.3
    keys = [f"storm-{seed}-{number}" for number in range(12)]
    with ThreadPoolExecutor(12) as workers:
        answers = [workers.submit(attempt, wide.first, key) for key in keys]
        time.sleep(chance.uniform(0.1, 0.9))
        wide.first.kill()
        for answer in answers:
            answer.result(60)
    wide.first.start_again()
    wait_for(lambda: warm(wide.first), "every node heard", 60)
    ids = set()
    for key in keys:
        made: list[httpx.Response] = []

        def asked(key: str = key, made: list[httpx.Response] = made) -> bool:
            made[:] = [wide.first.create(key)]
            return made[0].status_code < 400

        wait_for(asked, f"order {key}", 60)
        ids.add(made[0].json()["vm"]["id"])
    assert len(ids) == 12
    assert {vm: len(nodes) for vm, nodes in wide.held().items()} == dict.fromkeys(ids, 1)
    assert wide.first.vms() == {vm: nodes[0] for vm, nodes in wide.held().items()}


@pytest.mark.fault(
    "kill -9 of a controller in the midst of a batch",
    "when it is back it removes what was made of the batch: nobody was told of it",
)
def test_killed_controller_takes_back_the_batch_it_was_at(wide: Pool) -> None:
    """FLEET-12: nobody was told of it, so nothing of it stays."""
    for node in wide.nodes:
        # Until it is released: a batch that is whole before the kill is not taken back.
        node.delay = 600.0
    with ThreadPoolExecutor() as workers, wide.first.client() as client:
        workers.submit(client.post, "/v1/batches", json={"vms": [ORDER] * 4})
        wait_for(lambda: len(wide.held()) >= 2, "a part of the batch")
        wide.first.kill()
    assert wide.held()
    for node in wide.nodes:
        node.released.set()
    wide.first.start_again()
    wait_for(lambda: not wide.held(), "the batch taken back", 90)


@pytest.mark.fault(
    "two controllers race for the last place, 200 times",
    "one wins each time; the node's own check is final, and no node is overcommitted",
)
def test_two_controllers_race_for_the_last_place(wide: Pool) -> None:
    """FLEET-05, HOST-12: exactly one wins, each time, and no node is ever overcommitted."""
    for node in wide.nodes[1:]:
        node.refuse = "memory_not_free"
    one, other = wide.controllers
    filler = [one.create(vcpus=6).json()["vm"]["id"]]
    assert wide.held()[filler[0]] == ["a"]
    wins = []
    with ThreadPoolExecutor(2) as workers:
        for number in range(RACES):
            answers = [
                workers.submit(attempt, controller, f"race-{number}-{controller.url}")
                for controller in (one, other)
            ]
            results = [answer.result(60) for answer in answers]
            made = [result for result in results if result is not None and result.is_success]
            wins.append(len(made))
            for result in made:
                with one.client() as client:
                    vm = result.json()["vm"]["id"]
                    wait_for(partial(succeeds, client, "DELETE", f"/v1/vms/{vm}"), f"{vm} gone")
    assert set(wins) == {1}
    assert wide.nodes[0].most_vcpus <= 8 and set(wide.held()) == set(filler)


@pytest.mark.fault(
    "one order is given to both controllers at once",
    "one VM; at most one caller is told to ask again",
)
def test_one_order_given_to_both_controllers_is_one_vm(wide: Pool) -> None:
    """The same idempotency key at once: at most one is told to come again, and finds the VM."""
    for node in wide.nodes:
        node.delay = 0.2
    with ThreadPoolExecutor(2) as workers:
        for number in range(10):
            key = f"both-{number}"
            answers = [workers.submit(attempt, one, key) for one in wide.controllers]
            results = [answer.result(60) for answer in answers]
            codes = [result.json().get("code") for result in results if result is not None]
            assert codes in ([None, None], [None, "order_elsewhere"], ["order_elsewhere", None])
    assert {len(nodes) for nodes in wide.held().values()} == {1}
    assert len(wide.held()) == 10


@pytest.fixture
def impatient(wide: Pool) -> Iterator[Pool]:
    """The same pool; its first controller believes in a silent node for 10 s, not for 30."""
    restart(wide.first, IMPATIENT_SECONDS)
    yield wide
    restart(wide.first, STALE_SECONDS)


def restart(controller: Controller, stale_seconds: float) -> None:
    """Start a controller anew with another patience, and wait until it has heard every node."""
    controller.kill()
    controller.start_again(stale_seconds=stale_seconds)
    wait_for(lambda: warm(controller), "every node heard", 60)


@pytest.mark.fault(
    "a node's heartbeats stop",
    "after 30 s by the controller's own clock it is no candidate; its VMs are listed as stale",
)
def test_a_silent_node_is_no_candidate_and_its_vms_are_not_forgotten(impatient: Pool) -> None:
    """FLEET-16: by the controller's own clock; and nothing is said of what cannot be known."""
    wide = impatient
    made = wide.first.create().json()
    node = next(node for node in wide.nodes if node.name == made["node"])
    node.silent = True
    with wide.first.client() as client:
        wait_for(lambda: client.get(f"/v1/nodes/{node.name}").json()["stale"], "stale", 120)
        assert client.get(f"/v1/nodes/{node.name}").json()["age_seconds"] > IMPATIENT_SECONDS
        for _ in range(6):
            assert wide.first.create().json()["node"] != node.name
        assert client.get(f"/v1/vms/{made['vm']['id']}").json()["stale"] is True
        unknown = client.delete("/v1/vms/vm-unknown")
        assert (unknown.status_code, unknown.json()["code"]) == (503, "nodes_silent")
        codes = [alert["code"] for alert in client.get("/v1/alerts").json()]
        assert codes == ["node_stale"]
        node.silent = False
        wait_for(lambda: not client.get(f"/v1/nodes/{node.name}").json()["stale"], "heard", 120)
        assert client.delete(f"/v1/vms/{made['vm']['id']}").is_success
