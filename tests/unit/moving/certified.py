"""An authority and what it certifies, for agents that vouch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from ppn.host.moving.vouching import RECEIVER
from ppn.pool import certificates, keys
from ppn.pool.tls import TlsFiles


def authority(folder: Path, name: str = "ca") -> Path:
    """A new authority; the path of its key, with its certificate beside it."""
    key = folder / f"{name}.key"
    keys.generate(key, keys.public_path(key))
    made = certificates.authority_certificate(keys.load_private(key), "ppn", datetime.now(UTC))
    key.with_suffix(".crt").write_text(certificates.pem([made]))
    return key


def certified(
    ca: Path, node: str, *roles: str, ago: timedelta = timedelta(0), stem: str = "agent"
) -> TlsFiles:
    """A key of a node, with a certificate.

    Args:
        ca: the authority's key.
        node: whom it names.
        roles: what that is to others; an agent's when none is given.
        ago: how long ago it was signed.
        stem: of the files' names.
    """
    key = ca.with_name(f"{node}-{stem}.key")
    if not key.exists():
        keys.generate(key, keys.public_path(key))
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(keys.load_private(key), None)
    )
    made = certificates.sign(
        certificates.load_authority(ca, ca.with_suffix(".crt")),
        request,
        certificates.Subject(node, None, frozenset(roles or {RECEIVER})),
        datetime.now(UTC) - ago,
    )
    certificate = key.with_suffix(".crt")
    certificate.write_text(certificates.pem([made]))
    return TlsFiles(key, certificate, ca.with_suffix(".crt"))
