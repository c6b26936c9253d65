"""Facts about a node's certificate: everything in one round trip, and no private key."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography import x509
from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.files import FileStatus, parse_status
from facts.lines import STATUS, key_status, values, whole
from ppn.errors import PpnError
from ppn.pool.certificates import bundle_from_pem, request_from_der
from ppn.pool.tls import NODE_STEM

# Of the key only mode, owner and a signing request are printed. openssl may not be there yet.
SCRIPT = rf"""set -eu
{STATUS}
key=$1; certificate=$2
if [ -e "$key" ]; then
  echo "key $(stat -c '%a %U:%G' -- "$key")"
  if command -v openssl > /dev/null; then
    request=$(openssl req -new -key "$key" -subj / -outform DER | base64 -w 0)
    echo "request $request"
  fi
fi
status "file " "$certificate"
if [ -f "$certificate" ] && [ ! -L "$certificate" ]; then
  echo "certificate $(base64 -w 0 < "$certificate")"
fi
echo end"""


@dataclass(frozen=True)
class CertificateState:
    """A node's key and certificate.

    Args:
        key_mode, key_owner: of the private key's file; `None` when there is none.
        request: made with the key; `None` when there is no key, or openssl is not installed.
        file: the certificate's file; `None` when there is none.
        certificate: what is in it; `None` when that is not exactly one certificate.
    """

    key_mode: str | None
    key_owner: str | None
    request: x509.CertificateSigningRequest | None
    file: FileStatus | None
    certificate: x509.Certificate | None


class NodeCertificate(FactBase[CertificateState | None]):
    """A key of a node, and its certificate: what its services speak TLS with, or its agent's own.

    Args:
        stem: their path, without `.key` and `.crt`.

    Returns:
        The state, or `None` when any part of it could not be read.

    Example:
        `host.get_fact(NodeCertificate, stem="/etc/ppn/tls/agent")`
    """

    @override
    @staticmethod
    def default() -> CertificateState | None:
        return None

    @override
    def command(self, stem: str = NODE_STEM) -> StringCommand:
        words = ["ppn-certificate", f"{stem}.key", f"{stem}.crt"]
        return StringCommand("sh", "-c", QuoteString(SCRIPT), *(QuoteString(one) for one in words))

    @override
    def process(self, output: list[str]) -> CertificateState | None:
        return parse(output)


def parse(output: list[str]) -> CertificateState:
    """The script's output as a state.

    Raises:
        FactProcessError: the output is cut off, or a line is not of the expected form.
    """
    mode, owner = key_status(whole(output, "certificate"))
    statuses = [status for _, status in map(parse_status, values(output, "file"))]
    if len(statuses) != 1:
        raise FactProcessError("the certificate script did not tell of the certificate")
    return CertificateState(
        key_mode=mode,
        key_owner=owner,
        request=next((_request(text) for text in values(output, "request")), None),
        file=statuses[0],
        certificate=next((_certificate(text) for text in values(output, "certificate")), None),
    )


def _request(text: str) -> x509.CertificateSigningRequest:
    try:
        return request_from_der(base64.b64decode(text, validate=True))
    except (binascii.Error, PpnError) as error:
        raise FactProcessError(f"openssl made no signing request: {error}") from error


def _certificate(text: str) -> x509.Certificate | None:
    """The one certificate of a file; what is anything else has to be replaced."""
    try:
        found = bundle_from_pem(base64.b64decode(text, validate=True))
    except ValueError:
        return None
    return found[0] if len(found) == 1 else None
