"""Which controller is asked, and what an answer that does not come leaves open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from ppn.errors import PpnError, Refusal
from ppn.fleet.identity import vm_id
from ppn.tenant.fleet import Call, Fleet, FleetUnreachable, OutcomeOpen, surely_not_done
from tests.integration.fleet.edges import free_port
from tests.integration.tenant_proxy.parts import ORDER
from tests.integration.tenant_proxy.recorder import Recorder

ORDERED = {**ORDER, "owner": "acme", "disk_gib": 1, "disks": []}
OWN = IPv4Address("127.0.3.20")


@pytest.fixture
def recorders() -> Iterator[list[Recorder]]:
    """Two controllers that know nothing of each other."""
    made = [Recorder("127.0.3.21"), Recorder("127.0.3.22")]
    yield made
    for one in made:
        one.close()


def urls(recorders: list[Recorder]) -> list[str]:
    """Where they are."""
    return [f"http://{one.address}:{one.port}" for one in recorders]


def ask(controllers: list[str], *calls: Call) -> list[Any]:
    """The answers to calls, one after the other; errors among them."""

    async def scene() -> list[Any]:
        fleet = Fleet(OWN, controllers, time.monotonic)
        found: list[Any] = []
        for call in calls:
            try:
                found.append(await fleet.ask(call))
            except PpnError as error:
                found.append(error)
        await fleet.close()
        return found

    return asyncio.run(scene())


def order(key: str = "k", seconds: float = 30.0) -> Call:
    """An order for a VM."""
    return Call("POST", "/v1/vms", "from-the-test", seconds, ORDERED, key)


@pytest.mark.fault("a controller is down", "the next one is asked, and asked first from then on")
def test_one_that_is_down_is_passed_over(recorders: list[Recorder]) -> None:
    """FLEET-19: for the tenant nothing has happened."""
    dead = f"http://127.0.3.23:{free_port()}"
    made, shown = ask(
        [dead, *urls(recorders)],
        order(),
        Call("GET", f"/v1/vms/{vm_id('acme', 'k')}", "from-the-test", 30.0),
    )
    assert made["vm"]["id"] == shown["vm"]["id"]
    assert [len(one.seen) for one in recorders] == [2, 0]
    assert recorders[0].seen[0].headers["idempotency-key"] == "k"


def test_nothing_was_done_when_none_is_up() -> None:
    dead = [f"http://127.0.3.23:{free_port()}"] * 2
    (error,) = ask(dead, order())
    assert isinstance(error, FleetUnreachable) and surely_not_done(error)


def test_an_order_without_an_answer_is_repeated_under_its_key(recorders: list[Recorder]) -> None:
    """TEN-08: two controllers that have the same order make one VM; see `ppn.fleet.peers`."""
    recorders[0].drop = 1
    (made,) = ask(urls(recorders), order())
    assert made["vm"]["id"] == vm_id("acme", "k")
    keys = [one.seen[0].headers["idempotency-key"] for one in recorders]
    assert keys == ["k", "k"]


def test_a_refusal_after_an_open_answer_decides_nothing(recorders: list[Recorder]) -> None:
    """TEN-08: what the first controller did is not known, whatever the second one says."""
    recorders[0].drop = 1
    recorders[1].refuse = Refusal("full", code="no_room", constraint="x")
    (error,) = ask(urls(recorders), order())
    assert isinstance(error, OutcomeOpen) and not surely_not_done(error)


def test_the_callers_time_is_all_there_is(recorders: list[Recorder]) -> None:
    """TEN-09: a controller that says nothing for ever takes no more than that."""
    for one in recorders:
        one.stuck = {"acme"}
    # A question comes first: with a connection that is there, the order itself is sent in time.
    question = Call("GET", "/v1/vms", "from-the-test", 30.0)
    _, error = ask(urls(recorders), question, order(seconds=0.5))
    assert isinstance(error, OutcomeOpen)


def test_one_that_starts_or_does_not_know_us_is_passed_over(recorders: list[Recorder]) -> None:
    recorders[0].refuse = Refusal("wait", code="warming_up", constraint="x")
    (made,) = ask(urls(recorders), order())
    assert made["vm"]["id"] == vm_id("acme", "k")
    recorders[0].refuse = Refusal("who?", code="source_wrong", constraint="x")
    (made,) = ask(urls(recorders), order("k2"))
    assert made["vm"]["id"] == vm_id("acme", "k2")
    recorders[1].refuse = Refusal("wait", code="warming_up", constraint="x")
    (error,) = ask(urls(recorders), order("k3"))
    assert error.code == "warming_up" and surely_not_done(error)


@pytest.mark.parametrize(
    ("error", "sure"),
    [
        (Refusal("x", code="no_capacity", constraint="x"), True),
        (Refusal("x", code="vm_busy", constraint="x"), True),
        (Refusal("x", code="order_elsewhere", constraint="x"), False),
        (Refusal("x", code="order_differs", constraint="x"), False),
        (Refusal("x", code="vm_undecided", constraint="x"), False),
        (PpnError("x", code="node_unreachable"), True),
        (PpnError("x", code="outcome_unknown"), False),
        (PpnError("x", code="libvirt_failed"), False),
        (PpnError("x", code="internal"), False),
        (PpnError("x", code="never_heard_of"), False),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_what_is_not_sure_is_not_given_back(error: PpnError, sure: bool) -> None:
    """TEN-08."""
    assert surely_not_done(error) == sure
