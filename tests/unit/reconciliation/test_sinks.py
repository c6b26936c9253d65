"""What reaches a sink when its taking is cut off in the middle."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from ppn.fleet.reconciliation.notices import Notice
from ppn.fleet.reconciliation.settings import LinesFile, Webhook
from ppn.fleet.reconciliation.sinks import SinkFailed, deliver

GHOST = Notice(
    id="1",
    event="raised",
    at="2026-11-02T12:00:00+00:00",
    code="ghost_record",
    subject="vm-web",
    node="",
    message="no node has it",
    hint="see the audit log",
)


@pytest.mark.parametrize("secret", ["pässword", "", "a\nb", "\x00"])
def test_a_secret_that_no_header_takes_is_refused(tmp_path: Path, secret: str) -> None:
    """REC-03: with what is wrong, and never the secret itself."""
    token = tmp_path / "token"
    token.write_text(f"{secret}\n")
    token.chmod(0o600)
    sink = Webhook(name="hook", url="http://127.0.0.1:9/", token_file=token)
    with pytest.raises(SinkFailed) as caught:
        deliver(sink, (GHOST,), 0, "relay")
    assert "ASCII" in caught.value.message
    assert not secret.strip() or secret not in str(caught.value)


def test_a_disk_that_fills_up_in_a_line_leaves_nothing_of_it(tmp_path: Path) -> None:
    """REC-03: nor does what it did not take follow when the file is closed."""
    path = tmp_path / "alerts.jsonl"
    path.write_text("before\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (160, before[1]))
    try:
        with pytest.raises(SinkFailed):
            deliver(LinesFile(name="log", path=path), [GHOST], 0, "relay")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "before\n"
