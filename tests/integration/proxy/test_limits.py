"""What is slow, too long or too much ends by itself, and costs others nothing."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import httpx
import pytest

from ppn.pool.tls import TlsFiles
from tests.integration.proxy.parts import (
    SPEC,
    TICKET,
    TICKETED,
    Proxy,
    descriptors,
    proxy_with_agent,
    wait_for,
)
from tests.logged import logged

HEAD = f"POST /v1/vms HTTP/1.1\r\nHost: n\r\nPpn-Ticket: {json.dumps(TICKET)}\r\n"


def everything(line: socket.socket) -> bytes:
    """What comes until the other side ends the connection, cleanly or not."""
    found = b""
    try:
        while data := line.recv(65536):
            found += data
    except (ssl.SSLError, ConnectionError):
        pass
    return found


def test_a_body_that_is_too_long_is_not_read(proxy: Proxy, http: httpx.Client) -> None:
    """NP-04: by what it says, and by what it is."""
    before = proxy.agent.bytes_seen
    long = json.dumps(SPEC | {"user_data": {"a": "x" * 2**20}})
    headers = TICKETED | {"Content-Type": "application/json"}
    for content in (long.encode(), (part.encode() for part in (long[:1000], long[1000:]))):
        try:
            answer = http.post("/v1/vms", content=content, headers=headers)
        except httpx.TransportError:
            continue  # closed while we still sent; the next request finds the proxy well
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_long")
    assert http.get("/v1/openapi.json").status_code == 200
    assert proxy.agent.bytes_seen == before


def test_a_body_that_says_it_is_too_long_is_told_so(proxy: Proxy, controller: TlsFiles) -> None:
    """NP-04."""
    with proxy.connect(controller) as line:
        head = f"{HEAD}Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
        line.sendall(head.encode())
        answer = everything(line)
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer


def test_a_slow_body_ends(tmp_path: Path) -> None:
    """NP-10."""
    with proxy_with_agent(tmp_path, limits={"body_seconds": 1.0}) as proxy:
        with proxy.connect(proxy.authority.issue("relay", "controller")) as line:
            head = f"{HEAD}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
            line.sendall(head.encode())
            answer = everything(line)
        assert answer.startswith(b"HTTP/1.1 408") and b"body_late" in answer
        assert proxy.agent.bytes_seen == 0


def test_a_slow_header_ends(tmp_path: Path) -> None:
    """NP-06: a connection that says nothing whole is closed, at its first request and later."""
    parts = [b"GET /v1", b"GET /v1/vms HTTP/1.1\r\nHost: n\r\nX: "]
    # A sound request has no more time; the machine may be busy.
    with proxy_with_agent(tmp_path, limits={"header_seconds": 5.0}) as proxy, ExitStack() as stack:
        files = proxy.authority.issue("relay", "controller")
        lines = []
        for sent, asks in [(b"", False), *product(parts, (False, True))]:
            lines.append(stack.enter_context(proxy.connect(files)))
            if asks:
                lines[-1].sendall(b"GET /v1/elsewhere HTTP/1.1\r\nHost: n\r\n\r\n")
                assert lines[-1].recv(65536).endswith(b"}")
            lines[-1].sendall(sent)
        assert [everything(line) for line in lines] == [b""] * 5


def test_a_slow_handshake_ends(tmp_path: Path) -> None:
    """NP-01: whoever only opens a connection does not keep it, and not before its time is over."""
    with proxy_with_agent(tmp_path, limits={"handshake_seconds": 1.0}) as proxy:
        with socket.create_connection((proxy.address, proxy.port), timeout=30) as line:
            assert everything(line) == b""
        wait_for(lambda: bool(proxy.lines("connection refused")), "the audit line")
        (refused,) = proxy.lines("connection refused")
        assert (refused["code"], refused["detail"]) == ("tls_refused", "ConnectionAbortedError")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nHost: n\r\nX: " + b"x" * 40_000,
        b"POST /v1/vms HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/vms HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/vms HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nHost : n\r\n\r\n",
        b"GET /v1/vms\x00 HTTP/1.1\r\nHost: n\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_are_400(proxy: Proxy, controller: TlsFiles, sent: bytes) -> None:
    """NP-06: and the connection ends; nothing that could be read twice is read once more."""
    before = proxy.agent.bytes_seen
    with proxy.connect(controller) as line:
        line.sendall(sent)
        answer = everything(line)
    assert answer.startswith(b"HTTP/1.1 400") and b"http_invalid" in answer
    assert proxy.agent.bytes_seen == before


def test_damage_in_the_middle_of_a_body_ends_the_connection(
    proxy: Proxy, controller: TlsFiles
) -> None:
    """NP-06: a chunk that is none, after a sound header."""
    before = proxy.agent.bytes_seen
    with proxy.connect(controller) as line:
        head = f"{HEAD}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        line.sendall(f"{head}5\r\n{{ \r\nzz\r\n".encode())
        answer = everything(line)
    assert b"HTTP/1.1 2" not in answer
    assert proxy.agent.bytes_seen == before


def test_requests_in_one_packet_are_answered_in_turn(proxy: Proxy, controller: TlsFiles) -> None:
    """NP-09: interleaving on one side is none on the other."""
    one = b"GET /v1/vms/%b HTTP/1.1\r\nHost: n\r\n%b\r\n"
    names = [b"a", b"b", b"c"]
    last = b"Connection: close\r\n"
    with proxy.connect(controller) as line:
        line.sendall(b"".join(one % (name, last if name == b"c" else b"") for name in names))
        answer = everything(line)
    assert [part[:5] for part in answer.split(b'"vm":')[1:]] == [b'"a"}}', b'"b"}}', b'"c"}}']


def test_connections_are_bounded_and_none_leaks(tmp_path: Path) -> None:
    """NP-11: what is over the bound is dropped; what ends makes room."""
    limits = {"connections": 8, "connections_of_one": 8}
    with proxy_with_agent(tmp_path, limits=limits) as proxy:
        files = proxy.authority.issue("relay", "controller")
        with proxy.client(files) as http:
            http.get("/v1/vms")
        before = descriptors(proxy.process.pid)
        for _ in range(3):
            lines = [proxy.connect(files) for _ in range(8)]
            with pytest.raises((ssl.SSLError, ConnectionError)):
                proxy.connect(files)
            for line in lines:
                line.close()
            wait_for(lambda: descriptors(proxy.process.pid) <= before, "room")
            with proxy.client(files) as http:
                assert http.get("/v1/vms").status_code == 200
        codes = {line["code"] for line in proxy.lines("connection refused")}
        assert codes == {"connections_exhausted"}


def test_failed_handshakes_make_room_too(tmp_path: Path) -> None:
    """NP-11."""
    with proxy_with_agent(tmp_path, limits={"connections": 4}) as proxy:
        for _ in range(20):
            with socket.create_connection((proxy.address, proxy.port), timeout=30) as line:
                line.sendall(b"no TLS at all\r\n\r\n")
                everything(line)
        with proxy.client(proxy.authority.issue("relay", "controller")) as http:
            assert http.get("/v1/vms").status_code == 200
        # Twenty of a kind are one line now and one when the window is over.
        assert len(proxy.lines("connection refused")) == 1


def test_stopping_ends_with_the_requests_under_way(tmp_path: Path) -> None:
    with proxy_with_agent(tmp_path) as proxy:
        files = proxy.authority.issue("relay", "controller")
        with proxy.client(files) as http:
            assert http.get("/v1/vms").status_code == 200
            assert proxy.end() == 0
        assert logged(proxy.log)[-1]["event"] == "stopped"
