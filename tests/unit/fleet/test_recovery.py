"""What the recovery decides, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import PpnError
from ppn.fleet.nodes import Call
from tests.unit.fleet.controllers import BATCH, FIRST, KEY, PAIR, SECOND, Parts, intent


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A controller that has just started."""
    made = Parts(tmp_path / "intents.jsonl")
    with made.journal:
        yield made


def test_a_batch_under_way_is_left_alone(parts: Parts) -> None:
    """FLEET-12: a VM that is made waits for the slowest of its batch."""

    async def story() -> None:
        done = asyncio.Event()

        def slow(call: Call) -> Any:
            late = call.body is not None and call.body["name"] == SECOND
            return done.wait() if late else None

        parts.nodes.before = slow
        batch = asyncio.create_task(parts.batches.make(PAIR, KEY, parts.asked(600)))
        while len(parts.nodes.calls) < 2 or FIRST in parts.maker.under_way:
            await asyncio.sleep(0.01)
        await parts.settle()
        assert set(parts.journal.intents) == {FIRST, SECOND}
        done.set()
        await batch

    asyncio.run(story())
    assert parts.nodes.vms == {FIRST, SECOND} and "DELETE" not in parts.nodes.methods()
    assert not parts.journal.intents


def test_what_ended_meanwhile_is_not_decided(parts: Parts) -> None:
    """The recovery may wait long for one intent; the next may be another by then."""
    parts.journal.intend(intent("vm-1", batch=BATCH), intent("vm-2", batch=BATCH))
    parts.nodes.vms |= {"vm-2"}
    parts.nodes.before = lambda call: parts.journal.end("vm-2")
    asyncio.run(parts.settle())
    assert parts.nodes.vms == {"vm-2"} and not parts.journal.intents


def test_one_that_cannot_be_decided_does_not_stop_the_rest(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that left the inventory, an answer that is none, a disk that is full for a moment."""
    parts.journal.intend(intent("vm-1", "left"), intent("vm-2", "a"), intent("vm-3", "b"))

    def no_answer(call: Call) -> None:
        if call.node == "a":
            raise KeyError("vm")

    parts.nodes.before = no_answer
    asyncio.run(parts.settle())
    assert set(parts.journal.intents) == {"vm-1", "vm-2"}
    parts.nodes.before = lambda call: None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(parts.journal, "end", full)
        asyncio.run(parts.recovery.look())
    asyncio.run(parts.recovery.look())
    assert set(parts.journal.intents) == {"vm-1"}


def test_a_call_on_its_way_is_waited_for(parts: Parts) -> None:
    """What ended without an answer may still reach its node: none is asked at once."""
    parts.journal.intend(intent("vm-1"))
    asyncio.run(parts.recovery.look())
    assert not parts.nodes.calls
    asyncio.run(parts.settle())
    assert not parts.journal.intents


@pytest.mark.parametrize(
    ("says", "left", "open_"),
    [
        (None, set(), False),
        ("going", {FIRST}, True),
        ("waiting", {FIRST}, True),
        ("told", {FIRST}, False),
    ],
)
def test_what_another_controller_told_of_is_kept(
    parts: Parts, says: Any, left: set[str], open_: bool
) -> None:
    """FLEET-19: the same batch was given to another controller while this one was dead."""
    parts.journal.intend(intent(FIRST, batch=BATCH))
    parts.nodes.vms.add(FIRST)
    parts.peers.says = [says]
    asyncio.run(parts.settle())
    assert (parts.nodes.vms, bool(parts.journal.intents)) == (left, open_)


def test_a_silent_node_keeps_its_intents(parts: Parts) -> None:
    def silent(call: Call) -> None:
        raise PpnError("silent", code="node_unreachable")

    parts.journal.intend(intent("vm-1"), intent("vm-2", batch=BATCH))
    parts.nodes.before = silent
    asyncio.run(parts.settle())
    assert set(parts.journal.intents) == {"vm-1", "vm-2"}
