"""Certificates and authorities are replaced while the proxy serves."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import httpx
import pytest

from ppn.pool.certificates import bundle_from_pem, fingerprint
from ppn.pool.tls import TlsFiles
from tests.integration.proxy.parts import (
    NODE,
    SILENT,
    Authority,
    Proxy,
    done,
    proxy_with_agent,
    replace,
    wait_for,
)


def shown_to(proxy: Proxy, files: TlsFiles) -> str:
    """Which certificate the proxy shows now."""
    with proxy.connect(files) as line:
        shown = line.getpeercert(binary_form=True)
    if shown is None:
        raise ValueError("no certificate")
    (found,) = bundle_from_pem(ssl.DER_cert_to_PEM_cert(shown).encode())
    return fingerprint(found)


def taken_over(proxy: Proxy, count: int) -> None:
    """Wait until the proxy has taken over so many changes."""
    wait_for(lambda: len(proxy.lines("certificate taken over")) == count, "the reload")


def test_a_renewed_certificate_is_shown_and_no_connection_ends(tmp_path: Path) -> None:
    """NP-01: renewed with the same key, as the deploy does; the process stays."""
    with proxy_with_agent(tmp_path) as proxy:
        files = proxy.authority.issue("relay", "controller")
        with proxy.connect(files) as line:
            before = shown_to(proxy, files)
            renewed = proxy.authority.issue(NODE, "hypervisor", key=proxy.files.key)
            replace(proxy.files.certificate, renewed.certificate.read_text())
            taken_over(proxy, 1)
            assert shown_to(proxy, files) != before
            line.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: n\r\n\r\n")
            assert line.recv(65536).startswith(b"HTTP/1.1 200")
        assert proxy.process.poll() is None


def test_a_certificate_that_does_not_fit_is_not_taken_over(tmp_path: Path) -> None:
    with proxy_with_agent(tmp_path) as proxy:
        files = proxy.authority.issue("relay", "controller")
        before = shown_to(proxy, files)
        for damaged in ("", "half a certif", files.certificate.read_text()):
            replace(proxy.files.certificate, damaged)
        wait_for(lambda: bool(proxy.lines("certificate not taken over")), "the error")
        assert shown_to(proxy, files) == before
        proxy.files.certificate.unlink()
        assert shown_to(proxy, files) == before


def test_the_authority_is_replaced_without_a_refused_request(tmp_path: Path) -> None:
    """NP-01: trust both, sign anew, trust the new one alone; requests go on all the while."""
    with proxy_with_agent(tmp_path) as proxy:
        old = proxy.authority
        (tmp_path / "new").mkdir()
        new = Authority(tmp_path / "new")
        both = old.certificate.read_text() + new.certificate.read_text()
        (tmp_path / "both.crt").write_text(both)
        first = old.issue("relay", "controller")
        first = TlsFiles(first.key, first.certificate, tmp_path / "both.crt")
        second = new.issue("relay", "controller")
        second = TlsFiles(second.key, second.certificate, tmp_path / "both.crt")
        statuses: list[int | str] = []
        stop = threading.Event()
        asking = [first]

        def ask() -> None:
            while not stop.is_set():
                try:
                    # One connection each: an idle one may end just as it is used again.
                    with proxy.client(asking[0]) as http:
                        statuses.append(http.get("/v1/vms").status_code)
                except httpx.TransportError as error:
                    statuses.append(repr(error))

        caller = threading.Thread(target=ask)
        caller.start()
        try:
            replace(proxy.files.trust, both)
            taken_over(proxy, 1)
            asking[0] = second
            count = len(statuses)
            signed = new.issue(NODE, "hypervisor", key=proxy.files.key)
            replace(proxy.files.certificate, signed.certificate.read_text())
            taken_over(proxy, 2)
            # The first of them may still show the first certificate.
            wait_for(lambda: len(statuses) > count + 5, "some requests")
            replace(proxy.files.trust, new.certificate.read_text())
            taken_over(proxy, 3)
            count = len(statuses)
            wait_for(lambda: len(statuses) > count + 5, "more requests")
        finally:
            stop.set()
            caller.join(30)
        assert set(statuses) == {200}
        with pytest.raises(httpx.TransportError), proxy.client(first) as http:
            http.get("/v1/vms")


def test_a_lost_trust_ends_connections_that_stand_on_it(tmp_path: Path) -> None:
    """NP-01: after the request they are at."""
    with proxy_with_agent(tmp_path) as proxy:
        files = proxy.authority.issue("relay", "controller")
        (tmp_path / "new").mkdir()
        new = Authority(tmp_path / "new")
        with proxy.connect(files) as idle, proxy.connect(files) as busy:
            proxy.agent.reply = lambda request: SILENT
            busy.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: n\r\n\r\n")
            wait_for(lambda: bool(proxy.agent.requests), "the request")
            replace(proxy.files.trust, new.certificate.read_text())
            taken_over(proxy, 1)
            assert idle.recv(1) == b""
            proxy.agent.answer_late(done(proxy.agent.requests[0]))
            assert busy.recv(65536).startswith(b"HTTP/1.1 200")
            wait_for(lambda: busy.recv(65536) == b"", "its end")
