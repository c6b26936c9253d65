"""What the recovery decides, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ppn.errors import PpnError
from ppn.fleet.nodes import Call
from tests.unit.fleet.controllers import BATCH, FIRST, KEY, ORDER, PAIR, SECOND, Parts, intent


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
    """An answer that is none, a node that is silent, a disk that is full for a moment."""
    parts.journal.intend(intent("vm-1", "a"), intent("vm-2", "a"), intent("vm-3", "b"))

    def no_answer(call: Call) -> None:
        if call.path.endswith("vm-2"):
            raise KeyError("vm")
        silent(call)

    def silent(call: Call) -> None:
        if call.path.endswith("vm-1"):
            raise PpnError("silent", code="node_unreachable")

    parts.nodes.before = no_answer
    asyncio.run(parts.settle())
    assert set(parts.journal.intents) == {"vm-1", "vm-2"}
    parts.nodes.before = silent

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(parts.journal, "end", full)
        asyncio.run(parts.recovery.look())
    asyncio.run(parts.recovery.look())
    assert set(parts.journal.intents) == {"vm-1"}


@pytest.mark.parametrize("batch", ["", BATCH])
def test_what_was_begun_on_a_node_that_left_the_inventory_is_given_up(
    parts: Parts, batch: str
) -> None:
    """OPS-03: it ends in a stated way, and the same order can be carried out anew."""
    parts.journal.intend(intent(FIRST, "left", batch=batch))
    with capture_logs() as lines:
        asyncio.run(parts.settle())
    assert not parts.journal.intents and not parts.nodes.calls
    assert [(line["event"], line["node"]) for line in lines] == [
        ("what became of a vm is not known", "left"),
        ("decided", "left"),
    ]
    assert lines[0]["code"] == lines[1]["outcome"] == "node_removed"
    made = asyncio.run(parts.maker.make(FIRST, ORDER, parts.asked()))
    assert made.fresh and made.placed.node in ("a", "b")


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
