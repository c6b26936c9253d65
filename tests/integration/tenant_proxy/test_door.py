"""The proxy's listener: TLS, certificates that change, callers that are slow or too many."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ppn.tenant.store import Store
from tests.integration.proxy.parts import Authority, replace, wait_for
from tests.integration.tenant_proxy.parts import TenantProxy, context_of, provision, recording
from tests.integration.tenant_proxy.recorder import Recorder


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[TenantProxy, Recorder, str]]:
    """A proxy and a token for it."""
    with recording(tmp_path_factory.mktemp("door")) as (proxy, recorder):
        store = Store.open(proxy.store)
        token = provision(store, "acme")
        store.close()
        yield proxy, recorder, token


def shown(proxy: TenantProxy) -> bytes:
    """The certificate it shows now."""
    with (
        socket.create_connection((proxy.address, proxy.port), timeout=30) as plain,
        context_of(proxy.authority).wrap_socket(plain, server_hostname=proxy.address) as line,
    ):
        assert line.version() == "TLSv1.3"
        return line.getpeercert(binary_form=True) or b""


def test_a_token_is_sent_to_the_pools_own_server_alone(
    running: tuple[TenantProxy, Recorder, str], tmp_path: Path
) -> None:
    """CLI-02: another authority's server is refused by the client, and plain HTTP by the server."""
    proxy, _, token = running
    with proxy.client(token) as client:
        assert client.get("/v1/quota").is_success
    other = ssl.create_default_context(cafile=str(Authority(tmp_path).certificate))
    with httpx.Client(verify=other) as client, pytest.raises(httpx.ConnectError):
        client.get(f"https://{proxy.address}:{proxy.port}/v1/quota")
    old = context_of(proxy.authority)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with httpx.Client(verify=old) as client, pytest.raises(httpx.ConnectError):
        client.get(f"https://{proxy.address}:{proxy.port}/v1/quota")
    with httpx.Client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.get(f"http://{proxy.address}:{proxy.port}/v1/quota")


def test_a_renewed_certificate_is_shown_without_a_restart(
    running: tuple[TenantProxy, Recorder, str],
) -> None:
    """CLI-02: with a connection that stays; one that does not fit changes nothing."""
    proxy, _, token = running
    before = shown(proxy)
    with proxy.client(token) as client:
        assert client.get("/v1/quota").is_success
        renewed = proxy.authority.issue(
            "proxy", "tenant-proxy", address=proxy.address, key=proxy.files.key
        )
        replace(proxy.files.certificate, renewed.certificate.read_text())
        wait_for(lambda: bool(proxy.lines("certificate taken over")), "the renewal")
        assert shown(proxy) != before
        now = shown(proxy)
        strange = proxy.authority.issue("other", "tenant-proxy", address=proxy.address)
        for damaged in ("half a certif", strange.certificate.read_text()):
            replace(proxy.files.certificate, damaged)
            time.sleep(1.5)
            assert shown(proxy) == now
        wait_for(lambda: bool(proxy.lines("certificate not taken over")), "the error")
        assert client.get("/v1/quota").is_success
    shutil.copy(renewed.certificate, proxy.files.certificate)


def test_who_says_nothing_is_hung_up_on(running: tuple[TenantProxy, Recorder, str]) -> None:
    """TEN-09: connections that never ask keep nobody out."""
    proxy, _, _ = running
    address = (proxy.address, proxy.port)
    with socket.create_connection(address, timeout=30) as plain:
        plain.settimeout(30)
        assert plain.recv(1) == b""
    with (
        socket.create_connection(address, timeout=30) as plain,
        context_of(proxy.authority).wrap_socket(plain, server_hostname=proxy.address) as line,
    ):
        line.sendall(b"GET /v1/quota HTTP/1.1\r\nHost: ")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            while line.recv(1) != b"":
                pass
            raise ConnectionError("closed")


def test_a_body_that_is_too_long_is_not_read(running: tuple[TenantProxy, Recorder, str]) -> None:
    proxy, recorder, token = running
    recorder.seen.clear()
    with proxy.client(token) as client:
        refused = client.post("/v1/vms", content=b" " * (1024 * 1024 + 1))
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_long")
    assert recorder.seen == []


def test_who_has_no_token_is_answered_before_a_body(
    running: tuple[TenantProxy, Recorder, str],
) -> None:
    """TEN-09: what is sent without one takes no memory, from however many connections."""
    proxy, _, _ = running
    trusting = context_of(proxy.authority)
    head = (
        "POST /v1/vms HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer nonsense\r\nContent-Length: {1 << 20}\r\n\r\n"
    ).encode()
    # What TLS took of memory for these is there to be used again: it is no body's.
    for line in [connected(proxy, trusting) for _ in range(256)]:
        line.close()
    before = memory_mib(proxy)
    lines: list[ssl.SSLSocket] = []
    try:
        for _ in range(150):
            lines.append(connected(proxy, trusting))
            # All but the last byte: there is a body to wait for.
            lines[-1].sendall(head + b" " * ((1 << 20) - 1))
        statuses = {line.recv(12) for line in lines}
        grown = memory_mib(proxy) - before
    finally:
        for line in lines:
            line.close()
    # Beyond the rate of an address: not looked at at all.
    assert statuses <= {b"HTTP/1.1 401", b"HTTP/1.1 429"} and b"HTTP/1.1 401" in statuses
    assert grown < 75


def test_one_address_keeps_nobody_else_out(running: tuple[TenantProxy, Recorder, str]) -> None:
    """TEN-09: so many connections of one address, and the rest are closed at once."""
    proxy, _, token = running
    trusting = context_of(proxy.authority)
    lines: list[ssl.SSLSocket] = []
    kept = 0
    try:
        for _ in range(262):
            lines.append(connected(proxy, trusting))
            # Who says nothing would be hung up on while the others come.
            kept += is_answered(lines[-1])
        with proxy.client(token, source="127.0.0.2") as other:
            assert other.get("/v1/quota").is_success
    finally:
        for line in lines:
            line.close()
    assert 0 < kept <= 256


def connected(proxy: TenantProxy, trusting: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection on which nothing was said yet."""
    plain = socket.create_connection((proxy.address, proxy.port), timeout=30)
    return trusting.wrap_socket(plain, server_hostname=proxy.address)


def is_answered(line: ssl.SSLSocket) -> bool:
    """Whether an answer comes to a question."""
    try:
        line.sendall(b"GET /v1/quota HTTP/1.1\r\nHost: proxy\r\n\r\n")
        return line.recv(5) == b"HTTP/"
    except (ssl.SSLError, ConnectionError):
        return False


def memory_mib(proxy: TenantProxy) -> float:
    """The memory that a proxy has now."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
