"""What a log bears from a witness that is not what it should be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ppn.audit.pusher import MAX_ANSWER, Pusher, PushFailed
from ppn.audit.witness.settings import WitnessAt
from tests.unit.audit.samples import SIGNER, make_log


class Endless(BaseHTTPRequestHandler):
    """Answers with far more than a witness has to say."""

    def do_POST(self) -> None:
        """Take the checkpoint and go on answering."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(64):
                self.wfile.write(bytes(MAX_ANSWER))
        except OSError:
            return  # it was hung up, as it should be

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endless() -> Iterator[str]:
    """The URL of such a witness."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_without_an_end_is_not_read(tmp_path: Path, endless: str) -> None:
    """TEN-12: a witness must not be able to take the log's process down."""
    make_log(tmp_path / "log", (2,))
    pusher = Pusher(tmp_path / "log", SIGNER, WitnessAt("ppn/witness/server", endless))
    with pytest.raises(PushFailed, match="does not end its answer"):
        pusher.push()
