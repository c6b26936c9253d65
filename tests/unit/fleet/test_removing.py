"""Changes of a VM whose agent has started again: asked once more, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.errors import Refusal
from ppn.fleet.nodes import Call
from tests.unit.fleet.builders import heartbeat
from tests.unit.fleet.controllers import FIRST, ORDER, Parts

NEW = "7" * 32


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """A controller with one VM, made on node a."""
    monkeypatch.setattr("ppn.fleet.removing.POLL_SECONDS", 0.01)
    made = Parts(tmp_path / "intents.jsonl")
    with made.journal:
        asyncio.run(made.maker.make(FIRST, ORDER, made.asked()))
        made.nodes.calls.clear()
        yield made


def old_ticket(call: Call) -> None:
    """The agent of a node that has started again."""
    if call.session != NEW:
        raise Refusal("for another session", code="ticket_refused", constraint="ticket")


def test_it_is_asked_again_once_the_new_session_is_heard(parts: Parts) -> None:
    """HOST-02: in whichever order the refusal and the heartbeat come."""
    address = parts.registry.nodes["a"].address

    def restarted(call: Call) -> None:
        news = heartbeat("a", session=NEW, sequence=1)
        if len(parts.nodes.calls) == 1:
            parts.registry.hear(news, address, parts.clock())
        old_ticket(call)

    parts.nodes.before = restarted
    asyncio.run(parts.remover.remove_from(FIRST, "a", parts.asked()))
    assert [call.session == NEW for call in parts.nodes.calls] == [False, True]
    assert not parts.nodes.vms


def test_without_a_new_session_the_refusal_stands(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time a heartbeat takes, or the caller's own."""
    monkeypatch.setattr("ppn.fleet.removing.SESSION_SECONDS", 0.05)
    parts.nodes.before = old_ticket
    for seconds in (60.0, 0.02):
        parts.nodes.calls.clear()
        with pytest.raises(Refusal) as caught:
            asyncio.run(parts.remover.remove_from(FIRST, "a", parts.asked(seconds)))
        assert caught.value.code == "ticket_refused" and len(parts.nodes.calls) == 1
