"""A real proxy in a process of its own, a pool's authority, an agent that records every byte."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from ppn.durable import write_atomic
from ppn.pool import certificates, keys
from ppn.pool.certificates import Subject
from ppn.pool.tls import TlsFiles, client_context
from ppn.run import run
from ppn.wire.frames import encode_frame
from tests.logged import logged

NODE = "server"
SESSION = "5" * 32
TICKET = {"node": NODE, "session": SESSION, "nonce": "a" * 32}
TICKETED = {"Ppn-Ticket": json.dumps(TICKET)}
SPEC = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 256}
SILENT, HANG_UP = b"silent", b"hang up"
# A test that is not about a time-out shall meet none, however busy the machine is.
PATIENT = {
    "change_seconds": 600.0,
    "question_seconds": 300.0,
    "handshake_seconds": 60.0,
    "header_seconds": 60.0,
    "body_seconds": 60.0,
    "idle_seconds": 3600,
}

Reply = Callable[[dict[str, Any]], bytes]


def done(request: dict[str, Any]) -> bytes:
    """The answer of an agent that did as it was asked."""
    answer = {"correlation_id": request["correlation_id"], "result": {"did": request["body"]}}
    return encode_frame(json.dumps(answer).encode())


class RecordingAgent:
    """Listens where the host agent would, keeps every byte it is sent, answers as it is told.

    Args:
        path: of its socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reply: Reply = done
        self.bytes_seen = 0
        self.requests: list[dict[str, Any]] = []
        self.lines = 0
        self._last: asyncio.StreamWriter | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_unix_server(self._serve, path))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines += 1
        try:
            while True:
                prefix = await reader.readexactly(4)
                self.bytes_seen += 4
                payload = await reader.readexactly(int.from_bytes(prefix, "big"))
                self.bytes_seen += len(payload)
                request = json.loads(payload)
                self._last = writer
                self.requests.append(request)
                answer = self.reply(request)
                if answer == HANG_UP:
                    break
                if answer != SILENT:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.lines -= 1
            writer.close()

    def answer_late(self, answer: bytes) -> None:
        """Answer the last request, which was left without."""
        if self._last is not None:
            self._loop.call_soon_threadsafe(self._last.write, answer)

    def close(self) -> None:
        """End it with every line to it."""

        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self.path.unlink(missing_ok=True)


@dataclass
class Authority:
    """A pool's authority in a folder, with the operator's own commands.

    Args:
        folder: takes everything.
        name: of its files.
    """

    folder: Path
    name: str = "ca"

    def __post_init__(self) -> None:
        self.key = self.folder / f"{self.name}.key"
        self.certificate = self.folder / f"{self.name}.crt"
        keys.generate(self.key, keys.public_path(self.key))
        private = keys.load_private(self.key)
        made = certificates.authority_certificate(private, "ppn", datetime.now(UTC))
        self.certificate.write_text(certificates.pem([made]))

    def issue(
        self,
        node: str,
        *roles: str,
        address: str | None = "127.0.0.1",
        lifetime: timedelta = certificates.LIFETIME,
        ago: timedelta = timedelta(0),
        key: Path | None = None,
    ) -> TlsFiles:
        """A key made by openssl, as on a node, and its certificate.

        Args:
            node: whom it names.
            roles: what that is to others.
            address: where it may come from.
            lifetime: how long it holds.
            ago: how long ago it was signed.
            key: an existing one, which is kept.
        """
        stem = self.folder / f"{node}-{self.name}-{len(list(self.folder.iterdir()))}"
        path = key or stem.with_suffix(".key")
        if key is None:
            run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], timeout=30)
        made = run(["openssl", "req", "-new", "-key", path, "-subj", "/"], timeout=30).stdout
        certificate = certificates.sign(
            certificates.load_authority(self.key, self.certificate),
            certificates.request_from_pem(made.encode()),
            Subject(node, None if address is None else ip_address(address), frozenset(roles)),
            datetime.now(UTC) - ago,
            lifetime,
        )
        stem.with_suffix(".crt").write_text(certificates.pem([certificate]))
        return TlsFiles(path, stem.with_suffix(".crt"), self.certificate)


@dataclass
class Proxy:
    """A node proxy in a process of its own.

    Args:
        folder: takes its files.
        authority: that it trusts.
        agent: that it asks.
        address: it listens on.
        enter: words before its command, to run it in a network namespace.
        settings: beyond what it needs; limits, beyond its patience.
    """

    folder: Path
    authority: Authority
    agent: RecordingAgent
    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = self.authority.issue(NODE, "hypervisor", address=self.address)
        self.files = TlsFiles(own.key, self.folder / "node.crt", self.folder / "trust.crt")
        shutil.copy(own.certificate, self.files.certificate)
        shutil.copy(own.trust, self.files.trust)
        self.log = self.folder / "proxy.log"
        self.port = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        path = self.folder / "proxy.json"
        settings = {
            "node": NODE,
            "listen": self.address,
            "port": self.port,
            "mesh_range": "10.8.0.0/24",
            "allowed": ["127.0.0.1/32"],
            "certificate": str(self.files.certificate),
            "trust": str(self.files.trust),
            "agent_socket": str(self.agent.path),
            "development": True,
            **self.settings,
            "limits": PATIENT | self.settings.get("limits", {}),
        }
        path.write_text(json.dumps(settings))
        words = ["-m", "ppn.host.proxy", "--key", str(self.files.key), "--settings", str(path)]
        with self.log.open("ab") as log:
            process = subprocess.Popen([*self.enter, sys.executable, *words], stderr=log)
        wait_for(lambda: bool(self.lines("started")) or process.poll() is not None, "the proxy")
        self.port = int(self.lines("started")[-1]["port"])
        return process

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one event."""
        return logged(self.log, event=event)

    def client(self, files: TlsFiles, **options: Any) -> httpx.Client:
        """An HTTP client with a certificate."""
        base = f"https://{self.address}:{self.port}"
        options = {"timeout": 30, **options}
        return httpx.Client(base_url=base, verify=client_context(files), trust_env=False, **options)

    def connect(self, files: TlsFiles) -> ssl.SSLSocket:
        """A bare TLS connection with a certificate."""
        plain = socket.create_connection((self.address, self.port), timeout=30)
        return client_context(files).wrap_socket(plain, server_hostname=self.address)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


@contextmanager
def proxy_with_agent(folder: Path, **settings: Any) -> Iterator[Proxy]:
    """A proxy on loopback with a recording agent; both end with the block."""
    # The path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ppn-proxy-") as short:
        agent = RecordingAgent(Path(short) / "agent.sock")
        try:
            proxy = Proxy(folder, Authority(folder), agent, settings=settings)
            try:
                yield proxy
            finally:
                proxy.end()
        finally:
            agent.close()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def replace(path: Path, content: str) -> None:
    """Put other content in a file's place, as the deploy does."""
    write_atomic(path, content.encode())


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
