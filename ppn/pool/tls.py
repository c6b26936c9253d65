"""TLS between the pool's services: 1.3 alone, both sides show a certificate of the pool."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppn.errors import PpnError

# What a certificate of the pool says of whom it is for.
NODE_PREFIX, ROLE_PREFIX = "ppn:node:", "ppn:role:"
# Where every node has them, whichever services it runs.
NODE_STEM = "/etc/ppn/tls/node"
NODE_KEY, NODE_CERTIFICATE = f"{NODE_STEM}.key", f"{NODE_STEM}.crt"
# The host agent's own: no service that speaks to others is given this key.
AGENT_STEM = "/etc/ppn/tls/agent"
AGENT_KEY, AGENT_CERTIFICATE = f"{AGENT_STEM}.key", f"{AGENT_STEM}.crt"
NODE_TRUST = "/etc/ppn/tls/trust.crt"
# For plain HTTP inside the mesh: without it, httpx reads every public authority for each question.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class TlsUnusable(PpnError):
    """Key, certificate or trust that TLS cannot be spoken with."""

    code = "tls_unusable"


@dataclass(frozen=True)
class TlsFiles:
    """What a service speaks TLS with.

    Args:
        key: its private key.
        certificate: of that key, signed by the pool's authority.
        trust: the authorities it trusts; two while one replaces the other.
    """

    key: Path
    certificate: Path
    trust: Path


@dataclass(frozen=True)
class Identity:
    """Whom the other side's certificate names.

    Args:
        node: the node; empty when it names none.
        roles: what it is to others.
        addresses: where it may come from; empty when it does not say.
        ends: when the certificate ends, seconds since 1970.
    """

    node: str
    roles: frozenset[str]
    addresses: frozenset[str]
    ends: float


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """How a service answers: no caller gets further without a certificate of the pool (NP-01).

    Raises:
        TlsUnusable: a file is missing or damaged, or they do not belong together.
    """
    context = _context(files, ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would carry a certificate past the trust of today.
    context.num_tickets = 0
    return context


def open_context(files: TlsFiles) -> ssl.SSLContext:
    """How a service answers callers that show no certificate, and prove themselves otherwise.

    Raises:
        TlsUnusable: a file is missing or damaged, or they do not belong together.
    """
    return _context(files, ssl.PROTOCOL_TLS_SERVER)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """How a service calls: the answering certificate names the address that was called.

    Raises:
        TlsUnusable: a file is missing or damaged, or they do not belong together.
    """
    return _context(files, ssl.PROTOCOL_TLS_CLIENT)


def identity_of(peer: Mapping[str, Any]) -> Identity:
    """Whom a verified certificate names.

    Args:
        peer: as `SSLObject.getpeercert()` gives it.
    """
    names = peer.get("subjectAltName", ())
    uris = [value for kind, value in names if kind == "URI"]
    nodes = [uri.removeprefix(NODE_PREFIX) for uri in uris if uri.startswith(NODE_PREFIX)]
    roles = [uri.removeprefix(ROLE_PREFIX) for uri in uris if uri.startswith(ROLE_PREFIX)]
    return Identity(
        node=nodes[0] if len(nodes) == 1 else "",
        roles=frozenset(roles),
        addresses=frozenset(value for kind, value in names if kind == "IP Address"),
        ends=float(ssl.cert_time_to_seconds(peer["notAfter"])),
    )


def trusting_context(trust: Path) -> ssl.SSLContext:
    """How a program without a certificate of its own calls a service that asks for none.

    Args:
        trust: the authorities it trusts.

    Raises:
        TlsUnusable: the file is missing or damaged.
    """
    context = _plain_context(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=trust)
    except (OSError, ValueError) as error:
        raise TlsUnusable(
            f"cannot speak TLS with the trust of {trust}: {_reason(error)}",
            hint="run the pool's deploy for this node again",
        ) from error
    return context


@dataclass(frozen=True)
class Version:
    """Which certificate and which trust are on disk: their inodes and times."""

    certificate: tuple[int, int]
    trust: tuple[int, int]


def version_of(files: TlsFiles) -> Version:
    """Which certificate and trust are there now.

    Raises:
        TlsUnusable: one of them is missing.
    """
    try:
        found = [path.stat() for path in (files.certificate, files.trust)]
    except OSError as error:
        raise TlsUnusable(f"cannot read {error.filename}: {error.strerror}") from error
    certificate, trust = ((one.st_ino, one.st_mtime_ns) for one in found)
    return Version(certificate, trust)


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = _plain_context(protocol)
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(cafile=files.trust)
    except (OSError, ValueError) as error:
        raise TlsUnusable(
            f"cannot speak TLS with {files.certificate}, its key and {files.trust}:"
            f" {_reason(error)}",
            hint="run the pool's deploy for this node again",
        ) from error
    return context


def _plain_context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: Exception) -> str:
    """Why a file could not be used: the library's own words name none, and never what is in one."""
    what = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
    return str(what)
