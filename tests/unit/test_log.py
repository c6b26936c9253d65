"""How services write their logs: one JSON object to a line, whatever happens."""

from __future__ import annotations

import json
import sys

from ppn.run import run

FAILS = """
import structlog
from ppn.log import configure_log

configure_log()
log = structlog.get_logger("test")

def dig(secret):
    raise KeyError("the cause")

log.info("began", node="server")
log.debug("nobody asked")
try:
    dig("pass" + "word")
except KeyError as error:
    log.exception("broke off", vm="web")
    log.error("broke off later", exc_info=error)
"""


def test_an_error_is_logged_with_its_traceback_and_no_values() -> None:
    done = run([sys.executable, "-c", FAILS], timeout=60)
    began, *broken = [json.loads(line) for line in done.stderr.splitlines()]
    assert (began["event"], began["level"], began["node"]) == ("began", "info", "server")
    assert began["timestamp"].endswith("Z") and "exception" not in began
    assert [line["event"] for line in broken] == ["broke off", "broke off later"]
    for line in broken:
        assert line["level"] == "error" and "exc_info" not in line
        assert line["exception"].startswith("Traceback (most recent call last):")
        assert "in dig" in line["exception"] and "KeyError: 'the cause'" in line["exception"]
        assert "password" not in line["exception"]
