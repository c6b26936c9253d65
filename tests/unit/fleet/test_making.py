"""Making VMs when something goes wrong: nothing doubled, nothing of others touched, no leak."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ppn.errors import PpnError, Refusal
from ppn.fleet.nodes import Call, NodeUnreachable, OutcomeUnknown
from ppn.fleet.peers import Stage
from ppn.wire.fleet import VmOrder
from ppn.wire.heartbeat import VmState
from tests.unit.fleet.builders import heartbeat, report
from tests.unit.fleet.controllers import (
    BATCH,
    FIRST,
    KEY,
    ORDER,
    PAIR,
    SECOND,
    STRANGE,
    Parts,
    intent,
)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """A controller whose waits are short."""
    monkeypatch.setattr("ppn.fleet.making.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("ppn.fleet.making.POLL_SECONDS", 0.01)
    monkeypatch.setattr("ppn.fleet.peers.POLL_SECONDS", 0.01)
    made = Parts(tmp_path / "intents.jsonl")
    with made.journal:
        yield made


@pytest.mark.parametrize("code", ["order_elsewhere", "vm_exists"])
def test_a_batch_that_fails_takes_back_nothing_of_others(parts: Parts, code: str) -> None:
    """FLEET-12: what another controller makes under the same id is not of this batch."""
    if code == "order_elsewhere":
        parts.peers.says = ["going"]

    def refused(call: Call) -> None:
        if call.method == "POST":
            raise Refusal("there", code=code, constraint="the test")

    parts.nodes.before = refused
    with pytest.raises(Refusal) as caught:
        asyncio.run(parts.batches.make(PAIR, KEY, parts.asked()))
    assert caught.value.code == code
    assert "DELETE" not in parts.nodes.methods() and not parts.journal.intents
    assert not parts.registry.vms(parts.clock())


def test_the_same_batch_again_joins_the_one_under_way(parts: Parts) -> None:
    """FLEET-19: also while it is being taken back; both callers are told the same."""

    def second_fails(call: Call) -> None:
        if call.method == "POST" and call.body is not None and call.body["name"] == SECOND:
            raise Refusal("no", code="spec_invalid", constraint="the test")

    async def both() -> list[Any]:
        going = asyncio.Event()

        async def wait() -> None:
            going.set()
            await asyncio.sleep(0.1)

        def slow(call: Call) -> Any:
            second_fails(call)
            return wait() if call.method == "DELETE" else None

        parts.nodes.before = slow
        first = asyncio.create_task(parts.batches.make(PAIR, KEY, parts.asked()))
        await going.wait()
        again = asyncio.create_task(parts.batches.make(PAIR, KEY, parts.asked()))
        return list(await asyncio.gather(first, again, return_exceptions=True))

    results = asyncio.run(both())
    assert [getattr(one, "code", one) for one in results] == ["spec_invalid"] * 2
    assert not parts.nodes.vms and not parts.journal.intents and not parts.batches.under_way


def test_what_is_to_be_taken_back_is_not_answered_as_found(parts: Parts) -> None:
    """A VM of a batch that failed may be there still; its order waits until it is gone."""
    parts.nodes.vms.add(FIRST)
    parts.journal.intend(intent(FIRST, batch=BATCH))
    with pytest.raises(Refusal) as caught:
        asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert caught.value.code == "vm_undecided"


def test_what_nobody_foresaw_leaks_no_reservation(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the journal: the room is free again with the heartbeats."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts.journal, "intend", full)
    with pytest.raises(OSError, match="No space"):
        asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    parts.clock.ahead += 11
    parts.beat()
    assert not parts.registry.find(FIRST, parts.clock())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_an_order_that_cannot_be_sent_is_refused(value: object) -> None:
    """NP-04's rule: JSON readers take these, and no request can carry them."""
    with pytest.raises(ValidationError, match="JSON"):
        VmOrder.model_validate({**ORDER.model_dump(), "user_data": {"x": [value]}})


def test_a_node_that_stays_busy_does_not_hold_a_caller_for_ever(parts: Parts) -> None:
    """The deadline holds, whatever the node answers."""

    def busy(call: Call) -> None:
        if call.method == "POST":
            raise Refusal("at it", code="vm_busy", constraint="the test")

    parts.nodes.before = busy

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await parts.maker.make(FIRST, ORDER, parts.asked(0.2))

    with pytest.raises(OutcomeUnknown):
        asyncio.run(bounded())


def test_an_open_answer_is_waited_out_on_its_node(parts: Parts) -> None:
    """A node that is busy or away after a lost answer has not said that it made nothing."""
    says = ["agent_timeout", "node_busy", "node_unreachable", ""]

    def lost(call: Call) -> None:
        if code := says.pop(0) if says else "":
            if code == "agent_timeout":
                raise OutcomeUnknown("lost")
            raise PpnError(code, code=code)

    parts.nodes.before = lost
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert {call.node for call in parts.nodes.calls} == {made.placed.node} and not says


@pytest.mark.fault(
    "a node of another release answers an order with what the contract has not",
    "what it did is open: it is asked again, and makes the VM once",
)
def test_an_answer_that_breaks_the_contract_leaves_it_open(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLEET-01: nobody guesses what it meant."""
    monkeypatch.setattr("ppn.fleet.making.RETRY_SECONDS", 0.01)
    asked, strange = parts.nodes.ask, [*STRANGE]

    async def ask(call: Call) -> dict[str, Any]:
        answer = await asked(call)
        return strange.pop() if strange else answer

    monkeypatch.setattr(parts.nodes, "ask", ask)
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert (made.placed.node, parts.nodes.vms) == ("a", {FIRST})
    assert {call.node for call in parts.nodes.calls} == {"a"} and not strange


def test_a_failure_half_way_is_no_refusal(parts: Parts) -> None:
    """The node is asked what it has before another one is; a refusal is believed at once."""

    def times_out(call: Call) -> None:
        if call.method == "POST":
            parts.nodes.vms.add(FIRST)
            raise PpnError("libvirt is silent", code="libvirt_timeout")

    parts.nodes.before = times_out
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert (made.placed.node, parts.nodes.methods()) == ("a", ["POST", "GET"])


@pytest.mark.parametrize("state", ["stopped", "missing", "creating", "unknown"])
def test_what_does_not_run_is_asked_for_again(parts: Parts, state: VmState) -> None:
    """No VM is answered as made that does not run, as when its QEMU died while it was recorded."""
    failures = [PpnError("still to do: start", code="not_converged")]

    def dies(call: Call) -> None:
        if call.method == "POST" and failures:
            parts.nodes.vms.add(FIRST)
            parts.nodes.states[FIRST] = state
            raise failures.pop()

    parts.nodes.before = dies
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert (made.placed.node, made.placed.vm.state) == ("a", "running")
    assert parts.nodes.methods() == ["POST", "GET", "POST"]


@pytest.mark.parametrize("refused", [False, True])
def test_a_vm_that_was_told_of_before_it_failed_is_made_elsewhere(
    parts: Parts, refused: bool
) -> None:
    """A node tells of what it makes; that it has nothing of it after all is told as well."""
    address = parts.registry.nodes["a"].address

    def fails(call: Call) -> None:
        if call.method == "POST" and call.node == "a":
            # The agent reports what it has admitted.
            begun = report(FIRST, state="creating", uuid=None, image=ORDER.image)
            parts.registry.hear(heartbeat("a", begun, sequence=9), address, parts.clock())
            if refused:
                asyncio.get_running_loop().call_later(0.05, ends)
                raise Refusal("no port", code="ports_exhausted", constraint="the test")
            raise PpnError("QEMU ended", code="libvirt_failed")

    def ends() -> None:
        parts.registry.hear(heartbeat("a", sequence=10), address, parts.clock())

    parts.nodes.before = fails
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert (made.placed.node, made.fresh) == ("b", True)
    assert not parts.registry.doubled()


def test_an_agent_that_was_not_asked_is_passed_over(parts: Parts) -> None:
    """The next candidate has it made, without another question to the first."""

    def down(call: Call) -> None:
        if call.node == "a":
            raise PpnError("down", code="agent_unavailable")

    parts.nodes.before = down
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert (made.placed.node, parts.nodes.methods()) == ("b", ["POST", "POST"])


def test_the_key_of_another_order_is_refused(parts: Parts) -> None:
    """FLEET-19: vCPUs and memory may have been changed since, a root disk never is."""
    asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    resized = ORDER.model_copy(update={"vcpus": 4})
    assert asyncio.run(parts.maker.make(FIRST, resized, parts.asked())).fresh is False
    for changed in ({"disk_gib": 20}, {"label": "db"}, {"image": "other"}):
        with pytest.raises(Refusal) as caught:
            other = ORDER.model_copy(update=changed)
            asyncio.run(parts.maker.make(FIRST, other, parts.asked()))
        assert caught.value.code == "order_differs"


def test_of_two_controllers_one_goes_on(parts: Parts) -> None:
    """Also when the one with the higher address had asked before the other wrote its intent."""
    lower, higher = parts.peers.own - 1, parts.peers.own + 1
    table: list[tuple[Any, list[Any], bool]] = [
        (lower, ["checking"], False),
        (lower, ["going"], False),
        (higher, ["going"], False),
        (higher, ["checking", "going"], False),
        (higher, ["checking", "checking", None], True),
        (higher, ["told"], True),
        (lower, ["waiting"], True),
        (lower, [None], True),
    ]
    for other, says, goes in table:
        parts.peers.others, parts.peers.says = (other,), says
        if goes:
            asyncio.run(parts.peers.check_alone(FIRST))
            continue
        with pytest.raises(Refusal) as caught:
            asyncio.run(parts.peers.check_alone(FIRST))
        assert caught.value.code == "order_elsewhere"


@pytest.mark.parametrize("stage", ["told", "waiting"])
def test_what_another_controller_has_just_made_is_not_made_again(
    parts: Parts, stage: Stage
) -> None:
    """FLEET-19: its heartbeat may come late, so the node is asked that has it."""
    parts.peers.says, parts.peers.node = [stage], "b"
    parts.nodes.vms = {FIRST}
    for silent in (False, True):
        parts.nodes.before = cut if silent else lambda call: None
        with pytest.raises(Refusal) as caught:
            asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
        assert caught.value.code == "order_elsewhere"
    assert "POST" not in parts.nodes.methods() and not parts.journal.intents
    assert {call.node for call in parts.nodes.calls} == {"b"}
    # It was removed since.
    parts.nodes.before, parts.nodes.vms = lambda call: None, set()
    assert asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked())).fresh


def cut(call: Call) -> None:
    """A node that cannot be reached."""
    raise NodeUnreachable("no way")


def test_a_node_that_is_gone_keeps_nobody_from_making_it_anew(parts: Parts) -> None:
    parts.peers.says, parts.peers.node = ["told"], "gone"
    assert asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked())).fresh


@pytest.mark.parametrize("batch", [False, True])
def test_who_has_made_it_never_says_that_it_knows_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    """FLEET-19: also when the caller has gone; another controller would make it once more."""
    monkeypatch.setattr(parts.journal, "end", partial(noted, parts, parts.journal.end))

    async def run() -> None:
        asked = parts.asked()
        if batch:
            await parts.batches.make(PAIR, KEY, asked)
            return
        caller = asyncio.create_task(parts.maker.make(FIRST, ORDER, asked))
        while FIRST not in parts.maker.under_way:
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, parts.maker.under_way[FIRST][1], return_exceptions=True)

    asyncio.run(run())
    assert parts.maker.stage(FIRST) == "told" and parts.maker.told[FIRST] in ("a", "b")


def noted(parts: Parts, end: Callable[..., None], *vms: str) -> None:
    """An intent ends: by then it is known where the VM is."""
    assert set(vms) <= parts.maker.told.keys()
    end(*vms)


def test_a_controller_says_how_far_it_is(parts: Parts) -> None:
    stages: list[object] = [parts.maker.stage(FIRST)]

    async def note() -> None:
        stages.append(parts.maker.stage(FIRST))

    parts.nodes.before = lambda call: note()
    asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert [*stages, parts.maker.stage(FIRST)] == [None, "going", "told"]
