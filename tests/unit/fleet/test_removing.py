"""Changes of a VM whose agent has started again: asked once more, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ppn.errors import Refusal
from ppn.fleet.nodes import Call, OutcomeUnknown
from ppn.fleet.removing import NOBODY
from tests.unit.fleet.builders import heartbeat
from tests.unit.fleet.controllers import FIRST, ORDER, STRANGE, Parts

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
    if call.method != "GET" and call.session != NEW:
        raise Refusal("for another session", code="ticket_refused", constraint="ticket")


def test_it_is_asked_again_once_the_new_session_is_heard(parts: Parts) -> None:
    """HOST-02: in whichever order the refusal and the heartbeat come."""
    address = parts.registry.nodes["a"].address

    def restarted(call: Call) -> None:
        news = heartbeat("a", session=NEW, sequence=1)
        if parts.nodes.methods() == ["GET", "DELETE"]:
            parts.registry.hear(news, address, parts.clock())
        old_ticket(call)

    parts.nodes.before = restarted
    asyncio.run(parts.remover.remove_from(FIRST, "a", parts.asked()))
    assert [call.session == NEW for call in parts.nodes.calls[1:]] == [False, True]
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
        assert caught.value.code == "ticket_refused"
        assert parts.nodes.methods() == ["GET", "DELETE"]


def removed(parts: Parts, uuid: str | None = None) -> tuple[str, ...]:
    """Have the VM removed."""
    return asyncio.run(parts.remover.remove(FIRST, parts.asked(), uuid))


def made_anew(parts: Parts) -> None:
    """The VM is gone, and its customer has made another one under the same key."""
    parts.nodes.vms.add(FIRST)
    parts.nodes.uuids[FIRST] = "anew"


@pytest.mark.fault(
    "a removal's answer is lost, and the VM is made anew under its key before it is asked again",
    "the new VM stays, and the answer says that it is another one",
)
def test_a_removal_that_is_repeated_spares_what_was_made_since(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-08: it is about the one that was there when it began."""
    monkeypatch.setattr("ppn.fleet.removing.RETRY_SECONDS", 0.01)

    def lost(call: Call) -> None:
        if parts.nodes.methods() == ["GET", "DELETE"]:
            made_anew(parts)
            raise OutcomeUnknown("the answer is lost")

    parts.nodes.before = lost
    with pytest.raises(Refusal) as caught:
        removed(parts)
    assert caught.value.code == "vm_replaced" and parts.nodes.vms == {FIRST}
    parts.nodes.before = lambda call: None
    assert removed(parts) == ("a",) and not parts.nodes.vms


def test_a_removal_waits_for_an_answer_that_says_which_vm_it_is(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-08: before that nothing is removed."""
    monkeypatch.setattr("ppn.fleet.removing.RETRY_SECONDS", 0.01)
    asked, strange = parts.nodes.ask, [*STRANGE]

    async def ask(call: Call) -> dict[str, Any]:
        answer = await asked(call)
        return strange.pop() if strange else answer

    monkeypatch.setattr(parts.nodes, "ask", ask)
    assert removed(parts) == ("a",) and not parts.nodes.vms
    assert parts.nodes.methods() == ["GET"] * (len(STRANGE) + 1) + ["DELETE"]


def test_a_removal_of_the_very_one_asks_for_no_other(parts: Parts) -> None:
    """TEN-08: nothing is looked up again when its caller has named it."""
    made_anew(parts)
    with pytest.raises(Refusal) as caught:
        removed(parts, FIRST)
    assert caught.value.code == "vm_replaced" and parts.nodes.vms == {FIRST}
    assert removed(parts, "anew") == ("a",) and not parts.nodes.vms
    assert parts.nodes.methods() == ["DELETE", "DELETE"]


def test_on_a_node_that_has_none_only_its_agent_says_that_nothing_comes(parts: Parts) -> None:
    """FLEET-19: an agent that is about to make it refuses; what comes late meets no other."""
    parts.nodes.vms.clear()
    asyncio.run(parts.remover.remove_from(FIRST, "a", parts.asked()))
    assert parts.nodes.calls[-1].path == f"/v1/vms/{FIRST}?uuid={NOBODY}"
    parts.nodes.calls.clear()

    def came(call: Call) -> None:
        if call.method == "DELETE":
            made_anew(parts)

    parts.nodes.before = came
    with pytest.raises(Refusal) as caught:
        asyncio.run(parts.remover.remove_from(FIRST, "a", parts.asked()))
    assert caught.value.code == "vm_replaced" and parts.nodes.vms == {FIRST}
