"""The pool's authority: what it signs, for whom, and when a certificate is due."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ppn.cli.ca import ca_app
from ppn.errors import PpnError
from ppn.pool import certificates
from ppn.pool.certificates import LIFETIME, Authority, CertificateUnusable, Subject
from ppn.run import run

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SERVER = Subject("server", ip_address("10.8.0.2"), frozenset({"hypervisor", "controller"}))


def authority(now: datetime = NOW) -> Authority:
    key = Ed25519PrivateKey.generate()
    return Authority(key, certificates.authority_certificate(key, "ppn", now))


def request_for(key: Any) -> x509.CertificateSigningRequest:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("ppn:role:controller")])
    algorithm = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(names, critical=False).sign(key, algorithm)


CA = authority()
REQUEST = request_for(Ed25519PrivateKey.generate())


def signed(subject: Subject = SERVER, now: datetime = NOW) -> x509.Certificate:
    return certificates.sign(CA, REQUEST, subject, now)


@given(
    node=st.from_regex(r"[A-Za-z0-9@][A-Za-z0-9@._/-]{0,80}", fullmatch=True),
    address=st.none() | st.ip_addresses(v=4),
    roles=st.frozensets(st.sampled_from(["controller", "hypervisor", "relay", "operator"])),
)
def test_a_certificate_says_what_the_inventory_says(
    node: str, address: Any, roles: frozenset[str]
) -> None:
    """NP-01: and nothing the request asks for; this one asks to be a controller."""
    subject = Subject(node, address, roles)
    assert certificates.subject_of(signed(subject)) == subject


def test_openssl_accepts_it_by_its_strictest_rules(tmp_path: Path) -> None:
    """NP-01."""
    made = certificates.sign(authority(datetime.now(UTC)), REQUEST, SERVER, datetime.now(UTC))
    (tmp_path / "other.crt").write_text(certificates.pem([made]))
    own = authority(datetime.now(UTC))
    (tmp_path / "ca.crt").write_text(certificates.pem([own.certificate]))
    good = certificates.sign(own, REQUEST, SERVER, datetime.now(UTC))
    (tmp_path / "good.crt").write_text(certificates.pem([good]))
    words = ["openssl", "verify", "-x509_strict", "-CAfile", str(tmp_path / "ca.crt")]
    for purpose in ("sslclient", "sslserver"):
        run([*words, "-purpose", purpose, tmp_path / "good.crt"], timeout=30)
    assert run([*words, tmp_path / "other.crt"], timeout=30, accept=(0, 2)).returncode == 2


@pytest.mark.parametrize(
    "generate",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["rsa", "p384"],
)
def test_a_key_of_another_kind_is_not_signed(generate: Callable[[], Any]) -> None:
    request = request_for(generate())
    with pytest.raises(CertificateUnusable, match="neither Ed25519 nor P-256"):
        certificates.sign(CA, request, SERVER, NOW)


def test_p256_is_signed() -> None:
    request = request_for(ec.generate_private_key(ec.SECP256R1()))
    made = certificates.sign(CA, request, SERVER, NOW)
    assert certificates.reasons_to_sign(made, request, SERVER, CA.certificate, NOW) == ()


def test_a_request_whose_maker_lacks_the_key_is_not_signed() -> None:
    data = bytearray(REQUEST.public_bytes(Encoding.DER))
    data[-1] ^= 1
    with pytest.raises(CertificateUnusable) as caught:
        certificates.sign(CA, certificates.request_from_der(bytes(data)), SERVER, NOW)
    assert caught.value.code == "request_unsigned"


def test_an_authority_that_ended_signs_no_more() -> None:
    later = NOW + timedelta(days=3651)
    with pytest.raises(CertificateUnusable) as caught:
        certificates.sign(CA, REQUEST, SERVER, later)
    assert caught.value.code == "authority_ended"


def test_no_certificate_outlives_its_authority() -> None:
    made = signed(now=NOW + timedelta(days=3600))
    assert made.not_valid_after_utc == CA.certificate.not_valid_after_utc


def reasons(certificate: x509.Certificate | None, **changed: Any) -> tuple[str, ...]:
    asked: dict[str, Any] = {
        "request": REQUEST,
        "subject": SERVER,
        "authority": CA.certificate,
        "now": NOW,
    }
    return certificates.reasons_to_sign(certificate, **(asked | changed))


def test_what_was_just_signed_needs_no_signature() -> None:
    assert reasons(signed()) == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"request": request_for(Ed25519PrivateKey.generate())},
        {"subject": Subject("server", SERVER.address, frozenset({"hypervisor"}))},
        {"subject": Subject("server", ip_address("10.8.0.3"), SERVER.roles)},
        {"subject": Subject("other", SERVER.address, SERVER.roles)},
        {"authority": authority().certificate},
        {"now": NOW - timedelta(days=1)},
        {"now": NOW + LIFETIME * 0.7},
        {"now": NOW + LIFETIME * 2},
    ],
)
def test_each_reason_to_sign_is_one(changed: dict[str, Any]) -> None:
    assert len(reasons(signed(), **changed)) == 1


def test_a_node_without_a_certificate_needs_one() -> None:
    assert reasons(None) == ("it has none",)


def test_a_certificate_is_trusted_while_its_authority_is() -> None:
    """Also when another has the same name, as the next authority of a pool may."""
    shown = signed().public_bytes(Encoding.DER)
    other = authority().certificate
    assert certificates.is_trusted(shown, [other, CA.certificate])
    assert not certificates.is_trusted(shown, [other])


@given(st.floats(min_value=-0.1, max_value=2, allow_nan=False))
def test_due_when_less_than_a_third_is_left_and_never_twice(share: float) -> None:
    """A run signs anew once; the next run finds nothing to do."""
    now = NOW + LIFETIME * share
    due = certificates.is_due(signed(), now)
    assert due == (share > 2 / 3) or abs(share - 2 / 3) < 0.01
    if due:
        assert not certificates.is_due(signed(now=now), now)


def ca(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(ca_app, [str(word) for word in words])
    if isinstance(done.exception, PpnError):
        return 1, str(done.exception)
    return done.exit_code, done.output


def test_commands_make_an_authority_and_sign(tmp_path: Path) -> None:
    key, certificate = tmp_path / "ca.key", tmp_path / "ca.crt"
    assert ca("init", key, "--certificate", certificate, "--name", "mypool")[0] == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    request = tmp_path / "me.csr"
    request.write_bytes(REQUEST.public_bytes(Encoding.PEM))
    output = tmp_path / "me.crt"
    named = ("--node", "me", "--role", "operator", "--output", output)
    code, text = ca("sign", request, "--key", key, "--certificate", certificate, *named)
    assert (code, output.exists()) == (0, True), text
    made = certificates.read_certificate(output)
    assert certificates.subject_of(made) == Subject("me", None, frozenset({"operator"}))
    (row,) = json.loads(ca("show", output, "--json")[1])["certificates"]
    assert (row["of"], row["roles"], row["due"]) == ("me", ["operator"], False)
    assert row["issuer"] == "CN=mypool"
    assert "operator" in ca("show", output)[1]


def test_no_key_and_no_certificate_is_replaced(tmp_path: Path) -> None:
    words = ("init", tmp_path / "ca.key", "--certificate", tmp_path / "ca.crt")
    assert ca(*words)[0] == 0
    before = (tmp_path / "ca.key").read_bytes(), (tmp_path / "ca.crt").read_bytes()
    assert "(certificate_exists)" in ca(*words)[1]
    (tmp_path / "ca.crt").rename(tmp_path / "away.crt")
    assert "(key_exists)" in ca(*words)[1]
    assert ((tmp_path / "ca.key").read_bytes(), (tmp_path / "away.crt").read_bytes()) == before


def test_key_and_certificate_of_two_authorities_do_not_go_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ca("init", tmp_path / f"{name}.key", "--certificate", tmp_path / f"{name}.crt")
    with pytest.raises(CertificateUnusable) as caught:
        certificates.load_authority(tmp_path / "one.key", tmp_path / "two.crt")
    assert caught.value.code == "authority_mismatch"


@pytest.mark.parametrize("content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.crt").write_text(content)
    assert "(certificate_unusable)" in ca("show", tmp_path / "x.crt")[1]
