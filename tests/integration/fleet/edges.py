"""The edges of a node on loopback: its real proxy, its agent's socket, its heartbeats."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from ppn.pool.tls import TlsFiles
from ppn.wire.frames import encode_frame, payload_length
from tests.integration.proxy.parts import wait_for

# Below those that the kernel gives to whoever connects or asks for any.
PORTS = range(20_000, 32_000)
HEARTBEAT_SECONDS = 0.5
# What is answered to a request; None for a line that is cut.
Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


class Socket(socketserver.ThreadingUnixStreamServer):
    """Speaks the agent's frames on a Unix socket.

    Args:
        path: of the socket.
        answer: what to say.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(path), Line)


class Line(socketserver.StreamRequestHandler):
    """One connection of the node proxy."""

    def handle(self) -> None:
        """Answer frames until the other side has no more."""
        assert isinstance(self.server, Socket)
        while prefix := self.rfile.read(4):
            request = json.loads(self.rfile.read(payload_length(prefix)))
            answer = self.server.answer(request)
            if answer is None:
                return
            self.wfile.write(encode_frame(json.dumps(answer).encode()))


@contextmanager
def answering(path: Path, answer: Answer) -> Iterator[None]:
    """A stand-in for an agent at a socket, for the length of the block."""
    with Socket(path, answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(30)


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """A node's heartbeats, for the length of the block."""
    stop = threading.Event()

    def beats() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            beat()

    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


class Running:
    """A process of a test, and the ways in which it may stop."""

    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        """Let it do nothing more; the kernel goes on taking what it is sent."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it without warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> None:
        """End it and wait for it."""
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


@dataclass
class Door(Running):
    """A node's proxy in a process of its own.

    Args:
        folder: takes its settings and its log.
        name: the node's.
        address: it listens on.
        port: it listens on.
        agent: the agent's socket.
        files: its key and certificate.
    """

    folder: Path
    name: str
    address: str
    port: int
    agent: Path
    files: TlsFiles

    def __post_init__(self) -> None:
        settings = {
            "node": self.name,
            "listen": self.address,
            "port": self.port,
            "mesh_range": "10.8.0.0/24",
            "allowed": ["127.0.0.0/8"],
            "certificate": str(self.files.certificate),
            "trust": str(self.files.trust),
            "agent_socket": str(self.agent),
            "development": True,
        }
        self._settings = self.folder / f"{self.name}.json"
        self._settings.write_text(json.dumps(settings))
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        key = str(self.files.key)
        words = ["-m", "ppn.host.proxy", "--key", key, "--settings", str(self._settings)]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *words], stderr=log)
        wait_for(self.listens, f"the proxy of {self.name}")

    def listens(self) -> bool:
        """Whether something listens where it should."""
        with socket.socket() as caller:
            return caller.connect_ex((self.address, self.port)) == 0


@cache
def context() -> ssl.SSLContext:
    """One for all: httpx reads every public authority anew for each client, also for plain HTTP."""
    return httpx.create_ssl_context()


def send(source: str, url: str, beat: dict[str, Any]) -> int:
    """Send a heartbeat from an address; 0 when nobody answers."""
    transport = httpx.HTTPTransport(verify=context(), local_address=source)
    try:
        with httpx.Client(transport=transport, timeout=10) as client:
            return client.post(f"{url}/v1/heartbeats", json=beat).status_code
    except httpx.HTTPError:
        return 0


def free_port() -> int:
    """A port that nobody uses at any address now, and that the kernel gives to nobody by itself."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


def succeeds(client: httpx.Client, method: str, path: str) -> bool:
    """Whether a request is carried out."""
    return client.request(method, path).is_success
