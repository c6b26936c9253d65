"""A package archive on loopback that behaves as badly as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Mirror:
    """What a server has, how it behaves, and what it was asked.

    Args:
        address: where it is.
        files: content by path.
        faults: what it does instead of answering well, by path, one for each request in turn: a
            status, `cut` (half of it, then the end) or `endless`.
        asked: path and range of each request.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def served() -> Iterator[Mirror]:
    """A mirror, until the block ends."""
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        """Answers for the mirror."""

        def do_GET(self) -> None:
            answer(mirror, self)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(mirror: Mirror, handler: BaseHTTPRequestHandler) -> None:
    """Answer one request, as well as the mirror's faults allow."""
    path, begin = unquote(handler.path.lstrip("/")), handler.headers.get("Range", "")
    mirror.asked.append((path, begin))
    waiting = mirror.faults.get(path, [])
    fault = waiting.pop(0) if waiting else None
    content = mirror.files.get(path)
    if isinstance(fault, int) or content is None:
        handler.send_error(fault if isinstance(fault, int) else 404)
        return
    start = int(begin.removeprefix("bytes=").rstrip("-")) if begin else 0
    rest = content[start:]
    handler.send_response(206 if begin else 200)
    if fault != "endless":
        handler.send_header("Content-Length", str(len(rest)))
    handler.end_headers()
    handler.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)
    if fault == "endless":
        for _ in range(1000):
            handler.wfile.write(b"\0" * 65536)
