"""The pool's certificate authority: who may sign, what a node's certificate says, when it is due.

The authority's Ed25519 key is the operator's (see `ppn.pool.keys`) and never leaves that machine. A
node's key is born on the node; only its signing request and its certificate travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ppn.errors import PpnError
from ppn.pool.keys import load_private
from ppn.pool.tls import NODE_PREFIX, ROLE_PREFIX

AUTHORITY_DAYS = 3650
LIFETIME = timedelta(days=397)
# Clocks of a pool may differ by less than this.
BACKDATED = timedelta(hours=1)
MAX_COMMON_NAME = 64
MAX_PEM_BYTES = 256 * 1024


class CertificateUnusable(PpnError):
    """A certificate, request or bundle that is missing, damaged, or not what it should be."""

    code = "certificate_unusable"


@dataclass(frozen=True)
class Subject:
    """Whom a certificate names.

    Args:
        node: its name in the inventory.
        address: its mesh address; None for an operator, who may come from any listed address.
        roles: what it may be to others, for example `controller`.
    """

    node: str
    address: IPv4Address | IPv6Address | None
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Authority:
    """Who signs: the operator's key and the certificate every node trusts."""

    key: Ed25519PrivateKey
    certificate: x509.Certificate


def authority_certificate(key: Ed25519PrivateKey, name: str, now: datetime) -> x509.Certificate:
    """The self-signed certificate of a new authority.

    Args:
        key: the operator's.
        name: what it is called, for example the pool's name.
        now: when it begins, with a time zone.
    """
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(title)
        .issuer_name(title)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, None)
    )


def load_authority(key: Path, certificate: Path) -> Authority:
    """The operator's key with its certificate.

    Raises:
        KeyUnusable: the key is missing, open to others or no Ed25519 key.
        CertificateUnusable: the certificate is missing, no authority's, or another key's.
    """
    private = load_private(key)
    found = read_certificate(certificate)
    if _spki(found.public_key()) != _spki(private.public_key()):
        raise CertificateUnusable(
            f"{certificate} is not the certificate of {key}",
            code="authority_mismatch",
            hint="name the pair that `ppn ca init` made together",
        )
    if not is_authority(found):
        raise CertificateUnusable(
            f"{certificate} may not sign others",
            code="authority_wrong_kind",
            hint="`ppn ca init` makes one that may",
        )
    return Authority(private, found)


def sign(
    authority: Authority,
    request: x509.CertificateSigningRequest,
    subject: Subject,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> x509.Certificate:
    """A certificate for a key, over the names the inventory gives and none the request asks for.

    Args:
        authority: who signs.
        request: proves that its maker holds the key.
        subject: whom it will name.
        now: when it begins, with a time zone.
        lifetime: how long it holds, never longer than the authority itself.

    Raises:
        CertificateUnusable: the request's signature is wrong, its key of another kind, or the
            authority has ended.
    """
    key = request_key(request)
    end = authority.certificate.not_valid_after_utc
    if end <= now:
        raise CertificateUnusable(
            f"the authority ended on {end:%Y-%m-%d}",
            code="authority_ended",
            hint="make another with `ppn ca init` (docs/certificates.md)",
        )
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    title = x509.NameAttribute(NameOID.COMMON_NAME, subject.node[:MAX_COMMON_NAME])
    both_sides = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([title]))
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + lifetime, end))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_sides), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(subject)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, None)
    )


def request_key(
    request: x509.CertificateSigningRequest,
) -> Ed25519PublicKey | EllipticCurvePublicKey:
    """The key a request is for, once it has proved that its maker holds it.

    Raises:
        CertificateUnusable: the signature is wrong, or the key neither Ed25519 nor P-256.
    """
    key = request.public_key()
    known = isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    )
    if not known or not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise CertificateUnusable(
            "the request is for a key that is neither Ed25519 nor P-256",
            code="request_wrong_kind",
            hint="`openssl genpkey -algorithm ed25519` makes one that is",
        )
    if not request.is_signature_valid:
        raise CertificateUnusable(
            "the request is not signed by the key it is for",
            code="request_unsigned",
            hint="make it anew with `openssl req -new -key KEY -subj /`",
        )
    return key


def subject_of(certificate: x509.Certificate) -> Subject | None:
    """Whom a certificate of the pool names; None when it is of another kind."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    nodes = [uri.removeprefix(NODE_PREFIX) for uri in uris if uri.startswith(NODE_PREFIX)]
    roles = [uri.removeprefix(ROLE_PREFIX) for uri in uris if uri.startswith(ROLE_PREFIX)]
    found = names.get_values_for_type(x509.IPAddress)
    addresses = [one for one in found if isinstance(one, IPv4Address | IPv6Address)]
    if len(nodes) != 1 or len(found) != len(addresses) or len(addresses) > 1:
        return None
    return Subject(nodes[0], next(iter(addresses), None), frozenset(roles))


def reasons_to_sign(
    certificate: x509.Certificate | None,
    request: x509.CertificateSigningRequest,
    subject: Subject,
    authority: x509.Certificate,
    now: datetime,
) -> tuple[str, ...]:
    """Why a node needs another certificate than it has; empty when it does not.

    Args:
        certificate: what it has.
        request: made with the key it has.
        subject: whom the certificate should name.
        authority: whose signature it should bear.
        now: with a time zone; less than a third of the lifetime left is a reason.
    """
    if certificate is None:
        return ("it has none",)
    reasons = []
    if _spki(certificate.public_key()) != _spki(request.public_key()):
        reasons.append("its key is another")
    if subject_of(certificate) != subject:
        reasons.append("the inventory names it otherwise")
    if not is_signed_by(certificate, authority):
        reasons.append("another authority signed it")
    if certificate.not_valid_before_utc > now:
        reasons.append(f"it begins on {certificate.not_valid_before_utc:%Y-%m-%d}")
    if is_due(certificate, now):
        reasons.append(f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}")
    return tuple(reasons)


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether less than a third of a certificate's lifetime is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now < (end - begin) / 3


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether an authority's key signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_trusted(certificate: bytes, bundle: Sequence[x509.Certificate]) -> bool:
    """Whether one of some authorities signed a certificate.

    Args:
        certificate: DER, as TLS shows it.
        bundle: the authorities.
    """
    found = x509.load_der_x509_certificate(certificate)
    return any(is_signed_by(found, authority) for authority in bundle)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate may sign others."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return found.value.ca


def read_certificate(path: Path) -> x509.Certificate:
    """The one certificate of a PEM file.

    Raises:
        CertificateUnusable: missing, damaged, or not exactly one.
    """
    found = read_bundle(path)
    if len(found) != 1:
        raise CertificateUnusable(
            f"{path} holds {len(found)} certificates, not one", hint="keep the one that signs"
        )
    return found[0]


def read_bundle(path: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM file, at least one.

    Raises:
        CertificateUnusable: missing, damaged or empty.
    """
    try:
        with path.open("rb") as file:
            return bundle_from_pem(file.read(MAX_PEM_BYTES))
    except OSError as error:
        raise CertificateUnusable(
            f"cannot read {path}: {error.strerror}",
            code="certificate_missing",
            hint="`ppn ca init` makes the authority's; the pool's deploy gives a node its own",
        ) from error
    except ValueError as error:
        raise CertificateUnusable(
            f"{path} holds no certificates in PEM", hint="make it anew"
        ) from error


def bundle_from_pem(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM text.

    Raises:
        ValueError: damaged, or none.
    """
    return tuple(x509.load_pem_x509_certificates(pem))


def request_from_der(data: bytes) -> x509.CertificateSigningRequest:
    """A signing request from its bytes.

    Raises:
        CertificateUnusable: they are none.
    """
    try:
        return x509.load_der_x509_csr(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateUnusable("the signing request is damaged") from error


def request_from_pem(data: bytes) -> x509.CertificateSigningRequest:
    """A signing request from a PEM text.

    Raises:
        CertificateUnusable: it is none.
    """
    try:
        return x509.load_pem_x509_csr(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateUnusable("the signing request is damaged") from error


def pem(certificates: Sequence[x509.Certificate]) -> str:
    """Certificates as the PEM text ppn writes and compares."""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def fingerprint(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of a certificate: `openssl x509 -fingerprint -sha256` without the colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """An address from text.

    Raises:
        CertificateUnusable: it is none.
    """
    try:
        return ip_address(text)
    except ValueError as error:
        raise CertificateUnusable(
            f"{text!r} is no IP address", hint="give the mesh address of the node"
        ) from error


def _names(subject: Subject) -> list[x509.GeneralName]:
    uris = [NODE_PREFIX + subject.node, *(ROLE_PREFIX + role for role in sorted(subject.roles))]
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    return names if subject.address is None else [*names, x509.IPAddress(subject.address)]


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
