"""Who is told of alerts, and who tells of allocations: real servers on loopback."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ppn.pool.tls import TlsFiles


@dataclass
class Told:
    """What a receiver was sent, and what it is told to do wrong.

    Args:
        bodies: of the requests it took.
        headers: of the same.
        status: what a webhook answers.
        hang: set to let it answer nothing until it is cleared.
        waiting: set while a request hangs.
    """

    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 204
    hang: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)

    def notices(self) -> list[tuple[str, str, str, str]]:
        """Every notice a webhook took: event, class, subject, node."""
        found = [one for body in self.bodies for one in body["notices"]]
        return [(one["event"], one["code"], one["subject"], one["node"]) for one in found]


class _Http(BaseHTTPRequestHandler):
    """A webhook, and a tenant proxy that only knows its allocations."""

    protocol_version = "HTTP/1.1"
    told: Told
    answers: dict[str, Any]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.told.hang.is_set():
            self.told.waiting.set()
            while self.told.hang.is_set() and not self.server.closing.wait(0.05):  # type: ignore[attr-defined]  # ours
                pass
        if 200 <= self.told.status < 300:
            self.told.bodies.append(body)
            self.told.headers.append(dict(self.headers))
        self.told.waiting.clear()
        self._answer(self.told.status, b"")

    def do_GET(self) -> None:
        if self.path in self.answers:
            self._answer(200, json.dumps(self.answers[self.path]).encode())
        else:
            self._answer(503, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A caller that was killed in its midst."""


class _MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A caller that does not trust us."""


@contextmanager
def webhook() -> Iterator[tuple[str, Told]]:
    """A webhook for the length of the block, and its URL."""
    told = Told()
    with _serving("127.0.0.1", 0, told, {}, None) as port:
        yield f"http://127.0.0.1:{port}/hook", told


@contextmanager
def tenant_proxy(address: str, files: TlsFiles, answers: dict[str, Any]) -> Iterator[str]:
    """Answers GET as a tenant proxy would, with a certificate of the pool; its URL.

    Args:
        address: where it listens.
        files: its certificate.
        answers: by path; may be changed meanwhile.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    with _serving(address, 0, Told(), answers, context) as port:
        yield f"https://{address}:{port}"


@contextmanager
def _serving(
    address: str, port: int, told: Told, answers: dict[str, Any], context: ssl.SSLContext | None
) -> Iterator[int]:
    handler = type("Handler", (_Http,), {"told": told, "answers": answers})
    with _Server((address, port), handler) as server:
        server.closing = threading.Event()  # type: ignore[attr-defined]  # for the handler
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.closing.set()  # type: ignore[attr-defined]
            server.shutdown()
            thread.join()


@dataclass
class Mailbox:
    """A mail server's box.

    Args:
        mails: taken so far, each with its recipients.
        refuse: every mail, for now.
        secured: how many were sent over TLS.
        farewell: to who leaves.
    """

    mails: list[tuple[list[str], Message]] = field(default_factory=list)
    refuse: bool = False
    secured: int = 0
    farewell: str = "221 bye"
    context: ssl.SSLContext | None = None


class _Smtp(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as a client that only sends needs."""

    box: Mailbox

    def handle(self) -> None:
        self._say("220 test")
        secured, recipients = False, list[str]()
        while line := self.rfile.readline():
            verb = line.decode().strip().upper()
            if verb.startswith("EHLO"):
                extra = ["250-STARTTLS"] if self.box.context and not secured else []
                self._say("250-test", *extra, "250 SIZE 1000000")
            elif verb == "STARTTLS" and self.box.context is not None:
                self._say("220 go on")
                wrapped = self.box.context.wrap_socket(self.connection, server_side=True)
                self.connection, secured = wrapped, True
                self.rfile, self.wfile = wrapped.makefile("rb"), wrapped.makefile("wb", 0)  # type: ignore[assignment]
            elif verb.startswith("RCPT"):
                recipients.append(line.decode().partition("<")[2].partition(">")[0])
                self._say("250 ok")
            elif verb == "DATA" and self.box.refuse:
                self._say("451 later")
            elif verb == "DATA":
                self._say("354 go on")
                self.box.mails.append((recipients, message_from_bytes(self._data())))
                self.box.secured += secured
                self._say("250 taken")
            elif verb == "QUIT":
                self._say(self.box.farewell)
                return
            else:
                self._say("250 ok")

    def finish(self) -> None:
        """Close what STARTTLS put in the place of the connection, too."""
        super().finish()
        self.connection.close()

    def _data(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line)
        return b"".join(lines)

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


@contextmanager
def mail_server(files: TlsFiles | None = None) -> Iterator[tuple[int, Mailbox]]:
    """A mail server on loopback for the length of the block: its port, and its box.

    Args:
        files: a certificate, for one that offers STARTTLS.
    """
    box = Mailbox()
    if files is not None:
        box.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        box.context.load_cert_chain(files.certificate, files.key)
    handler = type("Handler", (_Smtp,), {"box": box})
    with _MailServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield int(server.server_address[1]), box
        finally:
            server.shutdown()
            thread.join()
