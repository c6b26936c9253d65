"""Webhook, mail and file are told of each alert once, whatever fails on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ppn.fleet.reconciliation import app, notices
from ppn.fleet.reconciliation.model import Finding, Key
from ppn.fleet.reconciliation.notices import State
from ppn.fleet.reconciliation.settings import ReconcileSettings
from ppn.fleet.reconciliation.store import Store
from tests.integration.proxy.parts import Authority
from tests.integration.reconciliation.receivers import Mailbox, Told, mail_server, webhook
from tests.logged import logged

GHOST = Finding("ghost_record", "vm-web", "", "no node has it", "destroy it")
GONE = Finding("qemu_gone", "web", "server", "it ended\nby itself\x1b[2J", "start it")


@pytest.fixture
def hook() -> Iterator[tuple[str, Told]]:
    with webhook() as found:
        yield found


@pytest.fixture
def mail() -> Iterator[tuple[int, Mailbox]]:
    with mail_server() as found:
        yield found


class Teller:
    """One node's sinks, told of findings as a run or a watch would.

    Args:
        folder: takes everything.
        sinks: as the inventory gives them.
    """

    def __init__(self, folder: Path, *sinks: dict[str, Any]) -> None:
        self.settings = ReconcileSettings.model_validate(
            {
                "name": "relay",
                "address": "127.0.0.1",
                "controllers": ["http://127.0.0.1:9"],
                "state": folder / "state",
                "sinks": sinks,
            }
        )
        Store(self.settings.state).prepare()

    def tell(self, *found: Finding) -> State:
        """Tell them in a process of its own, as far as what is kept is concerned."""

        def always(_: Key) -> bool:
            return True

        store = Store(self.settings.state)
        return app.tell(self.settings, store, "watch", lambda: (found, always))


def a_webhook(url: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "webhook", "name": "hook", "url": url, **fields}


def a_mail(port: int, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "mail",
        "name": "mail",
        "host": "127.0.0.1",
        "port": port,
        "encryption": "none",
        "sender": "ppn@example.org",
        "recipients": ["ops@example.org", "boss@example.org"],
        **fields,
    }


def a_file(path: Path) -> dict[str, Any]:
    return {"kind": "file", "name": "log", "path": path}


def lines(path: Path) -> list[tuple[str, str]]:
    """Event and class of each line of a file."""
    return [(one["event"], one.get("code", "")) for one in logged(path)]


def test_each_sink_is_told_once_and_once_that_it_is_over(
    tmp_path: Path, hook: tuple[str, Told], mail: tuple[int, Mailbox]
) -> None:
    """REC-03."""
    log = tmp_path / "alerts.jsonl"
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    sinks = (a_webhook(hook[0], token_file=token), a_mail(mail[0]), a_file(log))
    teller = Teller(tmp_path, *sinks)
    for _ in range(3):
        teller.tell(GHOST, GONE)
    teller.tell(GHOST)
    assert hook[1].notices() == [
        ("raised", "ghost_record", "vm-web", ""),
        ("raised", "qemu_gone", "web", "server"),
        ("cleared", "qemu_gone", "web", "server"),
    ]
    assert all(headers["Authorization"] == "Bearer secret" for headers in hook[1].headers)
    assert lines(log) == [
        ("raised", "ghost_record"),
        ("raised", "qemu_gone"),
        ("cleared", "qemu_gone"),
    ]
    (to, first), (_, second) = mail[1].mails
    assert to == ["ops@example.org", "boss@example.org"]
    assert first["Subject"] == "[ppn] 2 alerts raised, 0 cleared"
    assert second["Subject"] == "[ppn] cleared: qemu_gone web"
    text = str(first.get_payload())
    # What a strange thing is called makes no line of its own, and no colour.
    assert "\x1b" not in text and "it ended?by itself?[2J" in text and "Next step: start it" in text


@pytest.mark.fault(
    "a sink refuses, hangs or is gone", "the others are told at once, and it later, once"
)
def test_a_dead_sink_holds_up_no_other_and_is_told_later(
    tmp_path: Path,
    hook: tuple[str, Told],
    mail: tuple[int, Mailbox],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REC-03."""
    # For the sink that hangs: the others are done by then, also where the disk is slow.
    monkeypatch.setattr(app, "DELIVERY_SECONDS", 8.0)
    monkeypatch.setattr(notices, "FIRST_PAUSE_SECONDS", 0.0)
    log = tmp_path / "alerts.jsonl"
    gone = {"kind": "file", "name": "gone", "path": tmp_path / "missing/alerts.jsonl"}
    teller = Teller(tmp_path, a_webhook(hook[0]), a_mail(mail[0]), gone, a_file(log))
    hook[1].hang.set()
    mail[1].refuse = True
    state = teller.tell(GHOST)
    assert lines(log) == [("raised", "ghost_record")]
    owed = {name: len(one.pending) for name, one in state.sinks.items()}
    assert owed == {"hook": 1, "mail": 1, "gone": 1, "log": 0}
    assert "451" in state.sinks["mail"].error
    hook[1].status = 500
    hook[1].hang.clear()
    while hook[1].waiting.is_set():
        time.sleep(0.01)
    state = teller.tell(GHOST)
    assert "500" in state.sinks["hook"].error and state.sinks["hook"].failures == 2
    hook[1].status, mail[1].refuse = 200, False
    (tmp_path / "missing").mkdir()
    state = teller.tell(GHOST)
    assert not any(one.pending for one in state.sinks.values())
    assert hook[1].notices() == [("raised", "ghost_record", "vm-web", "")]
    assert len(mail[1].mails) == 1
    assert lines(tmp_path / "missing/alerts.jsonl") == lines(log) == [("raised", "ghost_record")]


def test_a_sink_at_rest_is_left_alone(tmp_path: Path, hook: tuple[str, Told]) -> None:
    """REC-03: what failed is not tried again at once."""
    hook[1].status = 503
    teller = Teller(tmp_path, a_webhook(hook[0]))
    teller.tell(GHOST)
    hook[1].status = 200
    assert len(teller.tell(GHOST).sinks["hook"].pending) == 1
    assert hook[1].bodies == []


def test_mail_goes_encrypted_to_a_server_that_is_trusted(tmp_path: Path) -> None:
    """REC-03: and not at all to another one."""
    authority = Authority(tmp_path)
    files = authority.issue("mail", address="127.0.0.1")
    with mail_server(files) as (port, box):
        wanted = a_mail(port, encryption="starttls")
        teller = Teller(tmp_path, wanted | {"trust": authority.certificate})
        assert not teller.tell(GHOST).sinks["mail"].pending
        assert box.secured == 1
        other = Teller(tmp_path / "other", wanted)
        assert "certificate" in other.tell(GHOST).sinks["mail"].error.lower()
        assert len(box.mails) == 1


def test_a_mail_that_was_taken_is_not_sent_again(tmp_path: Path, mail: tuple[int, Mailbox]) -> None:
    """REC-03: whatever the server says when it is left."""
    mail[1].farewell = "421 going down"
    teller = Teller(tmp_path, a_mail(mail[0]))
    assert not teller.tell(GHOST).sinks["mail"].pending
    assert len(mail[1].mails) == 1


def test_a_secret_that_others_can_read_is_not_used(tmp_path: Path, hook: tuple[str, Told]) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    state = Teller(tmp_path, a_webhook(hook[0], token_file=token)).tell(GHOST)
    assert "can be read by others" in state.sinks["hook"].error and hook[1].bodies == []


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """REC-03."""
    state = Teller(tmp_path, a_file(Path("/dev/full"))).tell(GHOST)
    assert len(state.sinks["log"].pending) == 1 and state.sinks["log"].error
