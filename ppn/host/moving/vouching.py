"""The destination's agent vouches for its key: who is on the way can put no other in its place.

A node's TLS key is the node proxy's too, so it proves nothing of the agent. The agent has a key of
its own, made on the node, readable by root alone, certified by the pool's authority for this alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ppn.errors import PpnError
from ppn.pool.certificates import (
    CertificateUnusable,
    bundle_from_pem,
    is_signed_by,
    pem,
    read_bundle,
    read_certificate,
    subject_of,
)
from ppn.pool.keys import load_private
from ppn.pool.tls import TlsFiles
from ppn.wire.moving import Greeting

# The whole role of an agent's certificate: one that says more is some other service's.
RECEIVER = "vm-receiver"
CONTEXT = b"ppn greeting of a move 1\n"


class GreetingForged(PpnError):
    """What came as a destination's greeting is not its agent's own."""

    code = "greeting_forged"


class Voucher:
    """Signs for one node's agent.

    Args:
        key: the agent's own.
        certificate: of that key.
    """

    def __init__(self, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    def vouch(self, greeting: Greeting, vm: str, move: str, source: str) -> Greeting:
        """The same greeting, signed for one move.

        Args:
            greeting: what is said.
            vm: which moves.
            move: the move's id.
            source: the node it is said to.
        """
        signature = self._key.sign(_signed(greeting, vm, move, source))
        return greeting.model_copy(
            update={
                "certificate": pem([self._certificate]),
                "signature": base64.b64encode(signature).decode(),
            }
        )


def load_voucher(files: TlsFiles) -> Voucher:
    """What an agent vouches with.

    Raises:
        KeyUnusable: the key is missing, or open to others.
        CertificateUnusable: the certificate is missing, or another key's.
    """
    key, certificate = load_private(files.key), read_certificate(files.certificate)
    own, named = key.public_key(), certificate.public_key()
    raw = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if own.public_bytes(*raw) != named.public_bytes(*raw):
        raise CertificateUnusable(
            f"{files.certificate} is not the certificate of {files.key}",
            code="certificate_mismatch",
            hint="run the pool's deploy for this node",
        )
    return Voucher(key, certificate)


def check_vouched(
    greeting: Greeting, vm: str, move: str, source: str, node: str, trust: Path
) -> None:
    """Refuse a greeting that is not the very agent's.

    Args:
        greeting: as it came.
        vm: which moves.
        move: the move's id.
        source: this node.
        node: the destination.
        trust: the authorities that this node trusts.

    Raises:
        GreetingForged: its certificate is no agent's of that node, or it was signed by another
            key, for another move, or changed since.
        CertificateUnusable: the authorities cannot be read.
    """
    try:
        (certificate,) = bundle_from_pem(greeting.certificate.encode())
        signature = base64.b64decode(greeting.signature, validate=True)
    except (ValueError, binascii.Error) as error:
        raise _forged(node, "its certificate cannot be read") from error
    key, now = certificate.public_key(), datetime.now(UTC)
    subject = subject_of(certificate)
    if subject is None or (subject.node, subject.roles) != (node, frozenset({RECEIVER})):
        raise _forged(node, "its certificate is not that node's agent's")
    if not any(_is_in_force(certificate, one, now) for one in read_bundle(trust)):
        raise _forged(node, "its certificate is not of this pool, or not in force")
    try:
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidSignature
        key.verify(signature, _signed(greeting, vm, move, source))
    except InvalidSignature as error:
        raise _forged(node, "it was not signed for this move, or changed since") from error


def _is_in_force(certificate: x509.Certificate, authority: x509.Certificate, now: datetime) -> bool:
    begun = all(one.not_valid_before_utc <= now for one in (certificate, authority))
    ended = any(one.not_valid_after_utc <= now for one in (certificate, authority))
    return begun and not ended and is_signed_by(certificate, authority)


def _signed(greeting: Greeting, vm: str, move: str, source: str) -> bytes:
    said = greeting.model_dump(mode="json", exclude={"certificate", "signature"})
    fields = {**said, "vm": vm, "move": move, "source": source}
    return CONTEXT + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _forged(node: str, reason: str) -> GreetingForged:
    return GreetingForged(
        f"what answers for node {node} is not its agent: {reason}",
        hint=f"run the pool's deploy for {node}; if that mends nothing, look who is on that node",
    )
