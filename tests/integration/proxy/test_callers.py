"""Who gets through the door: certificate, address, role; judged by real TLS clients."""

from __future__ import annotations

import errno
import socket
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from ppn.pool.tls import TlsFiles
from ppn.run import run
from tests.integration.proxy.parts import (
    SPEC,
    TICKETED,
    Authority,
    Proxy,
    proxy_with_agent,
    wait_for,
)

REQUEST = "GET /v1/vms HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"


def s_client(proxy: Proxy, *words: str | Path) -> str:
    """What OpenSSL's own client prints when it asks for the VMs."""
    server = f"{proxy.address}:{proxy.port}"
    trust = ["-CAfile", str(proxy.authority.certificate), "-verify_return_error"]
    done = run(
        ["openssl", "s_client", "-connect", server, "-ign_eof", *trust, *words],
        timeout=30,
        input=REQUEST,
        accept=(0, 1, errno.ECONNRESET),
    )
    return done.stdout + done.stderr


def refusals(proxy: Proxy) -> set[tuple[str, str]]:
    """Address and reason of each failed handshake in the audit log."""
    lines = proxy.lines("connection refused")
    return {(one["ip"], one["detail"]) for one in lines if one["code"] == "tls_refused"}


def shown(files: TlsFiles) -> list[str | Path]:
    """The words that show a certificate."""
    return ["-cert", files.certificate, "-key", files.key]


def test_openssl_with_the_right_certificate_is_served(proxy: Proxy, controller: TlsFiles) -> None:
    """NP-01."""
    printed = s_client(proxy, *shown(controller))
    assert "TLSv1.3" in printed
    assert "HTTP/1.1 200" in printed
    assert "Verify return code: 0 (ok)" in printed


@pytest.mark.parametrize(
    ("which", "detail"),
    [
        ("none", "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        ("wrong authority", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
        ("an authority of the same name", "unable to get local issuer certificate"),
    ],
)
def test_openssl_without_a_good_certificate_fails_the_handshake(
    proxy: Proxy, tmp_path: Path, which: str, detail: str
) -> None:
    """NP-01: and the agent hears nothing of it."""
    before = proxy.agent.bytes_seen
    other = Authority(tmp_path, "other")
    day = timedelta(days=1)
    words: dict[str, list[str | Path]] = {
        "none": [],
        "wrong authority": shown(other.issue("relay", "controller")),
        "an authority of the same name": shown(
            Authority(tmp_path, "ca").issue("relay", "controller")
        ),
        "expired": shown(proxy.authority.issue("relay", "controller", lifetime=day, ago=2 * day)),
        "self-signed": ["-cert", other.certificate, "-key", other.key],
    }
    printed = s_client(proxy, *words[which])
    assert "HTTP/1.1" not in printed
    assert proxy.agent.bytes_seen == before
    wait_for(lambda: ("127.0.0.1", detail) in refusals(proxy), "the audit line")


def test_openssl_with_an_older_tls_fails_the_handshake(proxy: Proxy, controller: TlsFiles) -> None:
    """NP-01."""
    printed = s_client(proxy, "-tls1_2", *shown(controller))
    assert "HTTP/1.1" not in printed
    wait_for(lambda: ("127.0.0.1", "UNSUPPORTED_PROTOCOL") in refusals(proxy), "the audit line")


def test_a_session_is_never_resumed(proxy: Proxy, controller: TlsFiles) -> None:
    """NP-01: each connection shows its certificate anew."""
    assert "New, TLSv1.3" in s_client(proxy, *shown(controller))
    assert "Post-Handshake New Session Ticket" not in s_client(proxy, *shown(controller))


@pytest.mark.parametrize(
    ("roles", "address", "code"),
    [
        (("hypervisor",), "127.0.0.1", "forbidden"),
        ((), "127.0.0.1", "forbidden"),
        (("controller",), "127.0.0.2", "source_wrong"),
    ],
)
def test_a_certificate_of_the_pool_is_not_enough(
    proxy: Proxy, roles: tuple[str, ...], address: str, code: str
) -> None:
    """HOST-02: another peer of the mesh asks a node to make a VM: 403, and no byte to the agent."""
    before = proxy.agent.bytes_seen
    with proxy.client(proxy.authority.issue("peer", *roles, address=address)) as http:
        answer = http.post("/v1/vms", json=SPEC, headers=TICKETED)
    assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert proxy.agent.bytes_seen == before


def test_an_operator_may_look_and_not_touch(proxy: Proxy) -> None:
    """HOST-02."""
    with proxy.client(proxy.authority.issue("me", "operator", address=None)) as http:
        assert http.get("/v1/vms").status_code == 200
        answer = http.post("/v1/vms", json=SPEC, headers=TICKETED)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_change_without_a_ticket_is_refused(proxy: Proxy, http: httpx.Client) -> None:
    """HOST-02."""
    before = proxy.agent.bytes_seen
    other = {"Ppn-Ticket": TICKETED["Ppn-Ticket"].replace("server", "laptop")}
    for headers in ({}, other):
        answer = http.post("/v1/vms", json=SPEC, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "ticket_refused")
    assert proxy.agent.bytes_seen == before


def test_an_address_outside_the_ringfence_is_dropped(tmp_path: Path) -> None:
    """NP-02: before TLS; a good certificate does not help (namespaces: test_ringfence.py)."""
    with proxy_with_agent(tmp_path, allowed=["127.0.0.2/32"]) as proxy:
        files = proxy.authority.issue("relay", "controller")
        with pytest.raises(httpx.ConnectError), proxy.client(files) as http:
            http.get("/v1/vms")
        wait_for(lambda: bool(proxy.lines("connection refused")), "the audit line")
        (line,) = proxy.lines("connection refused")
        assert (line["ip"], line["code"], line["outcome"]) == ("127.0.0.1", "ringfence", "refused")


def test_the_proxy_listens_on_its_one_address(proxy: Proxy) -> None:
    """NP-07: and speaks to the agent over its Unix socket alone."""
    printed = run(["ss", "-H", "-ltnp"], timeout=30).stdout.splitlines()
    own = [line.split()[3] for line in printed if f"pid={proxy.process.pid}," in line]
    assert own == [f"127.0.0.1:{proxy.port}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", proxy.port), timeout=5)
