"""The command and a server over TLS: who is believed, what is sent, how a refusal is told."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ppn.pool.tls import TlsFiles
from ppn.run import Completed, run
from ppn.wire.problems import MEDIA_TYPE
from tests.integration.host.node import PPN
from tests.integration.proxy.parts import Authority

TOKEN = "ppn_ab12_" + "A" * 43
QUOTA = {
    "type": "urn:ppn:problem:quota_exceeded",
    "title": "tenant's ceiling",
    "status": 403,
    "detail": "tenant acme has no room for this VM",
    "code": "quota_exceeded",
    "constraint": "tenant's ceiling",
    "wanted": 2048,
    "free": 512,
    "unit": "MiB",
    "hint": "destroy a VM or ask the operator for a higher ceiling",
    "correlation_id": "abcdef1234567890",
}


class Door(ThreadingHTTPServer):
    """A server where a tenant proxy would be; it notes what it is sent.

    Args:
        files: what it shows of itself.
    """

    daemon_threads = True

    def __init__(self, files: TlsFiles) -> None:
        self.heard: list[tuple[str, str, str]] = []
        self.status, self.answer = 200, b"[]"
        super().__init__(("127.0.0.1", 0), Line)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away in the handshake is expected here."""


class Line(BaseHTTPRequestHandler):
    """One connection."""

    server: Door

    def do_GET(self) -> None:
        """Answer as told."""
        self.do_POST()

    def do_POST(self) -> None:
        """Note the request and answer as told."""
        authorization = self.headers.get("Authorization", "")
        self.server.heard.append((self.command, self.path, authorization))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.server.status)
        self.send_header("Content-Type", MEDIA_TYPE)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@dataclass
class Tenant:
    """A tenant with a token, and the door they knock at."""

    door: Door
    folder: Path
    ca: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the door."""
        return f"https://127.0.0.1:{self.door.server_address[1]}"

    def ppn(self, *words: str, accept: tuple[int, ...] = (0,)) -> Completed:
        """Run `ppn` as the tenant."""
        given = {
            **os.environ,
            "PPN_PROXY": self.url,
            "PPN_TOKEN_FILE": str(self.folder / "token"),
            "PPN_CA_CERTIFICATE": str(self.ca),
            **self.environment,
        }
        return run([PPN, *words], timeout=60, accept=accept, env=given)


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    """A tenant, and a door that shows a certificate of the pool."""
    authority = Authority(tmp_path)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    with Door(authority.issue("relay", "tenant-proxy")) as door:
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield Tenant(door, tmp_path, authority.certificate)
        door.shutdown()
        thread.join()


def test_the_token_reaches_the_pools_own_server_and_no_output(tenant: Tenant) -> None:
    """CLI-01, CLI-02."""
    done = tenant.ppn("vm", "list", "--json")
    assert tenant.door.heard == [("GET", "/v1/vms", f"Bearer {TOKEN}")]
    assert json.loads(done.stdout) == [] and TOKEN not in done.stdout + done.stderr


def test_a_server_with_another_key_hears_nothing(tenant: Tenant) -> None:
    """CLI-02: a wrong server key is refused before the token is sent."""
    other = tenant.folder / "other"
    other.mkdir()
    tenant.ca = Authority(other).certificate
    done = tenant.ppn("vm", "list", accept=(6,))
    assert "server_untrusted" in done.stderr and tenant.door.heard == []


def test_a_certificate_for_another_address_is_none(tenant: Tenant) -> None:
    """CLI-02: any node of the pool has a certificate; only the one that was called is believed."""
    port = tenant.door.server_address[1]
    tenant.environment = {"PPN_PROXY": f"https://localhost:{port}"}
    assert "server_untrusted" in tenant.ppn("vm", "list", accept=(6,)).stderr
    assert tenant.door.heard == []


def test_no_token_no_request(tenant: Tenant) -> None:
    """CLI-01: no credential, no effect."""
    tenant.environment = {"PPN_TOKEN_FILE": str(tenant.folder / "none")}
    assert tenant.ppn("vm", "create", "tiny", accept=(6,)).stdout == ""
    assert tenant.door.heard == []


def test_a_refusal_is_told_whole(tenant: Tenant) -> None:
    """CLI-04: constraint, numbers, next step, and the id that finds the log lines."""
    tenant.door.status, tenant.door.answer = 403, json.dumps(QUOTA).encode()
    done = tenant.ppn("vm", "create", "tiny", accept=(3,))
    assert "[tenant's ceiling: wanted 2048, free 512 MiB] (quota_exceeded): destroy" in done.stderr
    assert "correlation id abcdef1234567890" in done.stderr


def test_an_answer_that_is_none_is_told_as_such(tenant: Tenant) -> None:
    tenant.door.answer = b"<html>"
    assert "no answer of the pool's services" in tenant.ppn("vm", "list", accept=(5,)).stderr
