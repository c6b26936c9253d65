"""Operations on a node's TLS: its key, whom it trusts, and the certificate the operator signs."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from facts.certificates import CertificateState, NodeCertificate
from facts.files import Statuses
from facts.shared import shared_fact
from operations.failure import fail, unreadable
from operations.files import INSTALLER, File, payload
from operations.files import plan as differing_files
from ppn.errors import PpnError
from ppn.inventory import Pool
from ppn.pool.certificates import (
    CertificateUnusable,
    Subject,
    is_authority,
    load_authority,
    pem,
    read_bundle,
    read_certificate,
    reasons_to_sign,
    sign,
)
from ppn.pool.tls import NODE_STEM, NODE_TRUST

# A hard link, unlike a rename, fails when the name is taken: no key is ever replaced.
MAKE_KEY = r"""set -eu
umask 077
key=$1; folder=${key%/*}
(umask 022; mkdir -p "$folder")
new=$(mktemp "$folder/.key.XXXXXX")
trap 'rm -f "$new"' EXIT
openssl genpkey -algorithm ed25519 > "$new"
sync "$new"
ln -T "$new" "$key"
sync "$folder" """


@operation()
def key(stem: str = NODE_STEM) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare that a node has a key of its own, made on the node, readable by root alone.

    An existing key is never replaced. To give a node another one, remove the file and run again.

    + stem: its path, without `.key`.

    **Example:**

    .. code:: python

        certificates.key(name="TLS key")
    """
    state, path = shared_fact(NodeCertificate, stem=stem), f"{stem}.key"
    if state is None:
        yield unreadable(f"{path} and its certificate")
        return
    if state.key_mode is None:
        yield StringCommand("sh", "-c", QuoteString(MAKE_KEY), "ppn-key", QuoteString(path))
        return
    if (state.key_mode, state.key_owner) == ("0600", "root:root"):
        host.noop(f"{path} is there, for root alone")
        return
    yield StringCommand("chown", "root:root", QuoteString(path))
    yield StringCommand("chmod", "0600", QuoteString(path))


@operation()
def trusted(
    bundle: str, certificate: str
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare which authorities a node trusts; the one that signs has to be among them.

    + bundle: a file on this machine with one certificate, or two while one replaces the other.
    + certificate: of the authority that signs, a file on this machine.

    **Example:**

    .. code:: python

        certificates.trusted(
            name="Trusted authorities",
            bundle="inventories/mypool/ca.crt",
            certificate="inventories/mypool/ca.crt",
        )
    """
    try:
        files = {NODE_TRUST: File(trust_bundle(Path(bundle), Path(certificate)))}
    except PpnError as error:
        yield fail(str(error))
        return
    actual = host.get_fact(Statuses, paths=[NODE_TRUST])
    if actual is None:
        yield unreadable(NODE_TRUST)
        return
    if not differing_files(files, actual):
        host.noop("the node trusts the declared authorities")
        return
    yield installed(files)


def trust_bundle(bundle: Path, certificate: Path) -> str:
    """The trust file of every node.

    Raises:
        CertificateUnusable: a file is missing or damaged, holds what is no authority, or the
            authority that signs would not be trusted.
    """
    found = read_bundle(bundle)
    if not all(is_authority(one) for one in found):
        raise CertificateUnusable(
            f"{bundle} holds a certificate that is no authority's",
            code="authority_wrong_kind",
            hint="put into it what `ppn ca init` made, and nothing else",
        )
    if read_certificate(certificate) not in found:
        raise CertificateUnusable(
            f"{certificate} signs, but {bundle} does not hold it: services would not trust it",
            code="authority_untrusted",
            hint=f"`cat {certificate} >> {bundle}`, run, and only then let it sign",
        )
    return pem(found)


@operation()
def signed(
    pool: Pool,
    key: str,
    certificate: str,
    stem: str = NODE_STEM,
    roles: Collection[str] | None = None,
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare a node's certificate: its name, mesh address and roles, signed on this machine.

    It is signed anew when one of these or the authority changes, and when less than a third of
    its lifetime is left. The authority's key is read only then.

    + pool: the sound nodes of the inventory.
    + key: the authority's private key, a file on this machine.
    + certificate: the authority's certificate, a file on this machine.
    + stem: the path of the node's key and certificate, without `.key` and `.crt`.
    + roles: what it is to others; the node's roles in the inventory when `None`.

    **Example:**

    .. code:: python

        certificates.signed(
            name="Certificate",
            pool=pool,
            key="/home/me/.config/ppn/ca.key",
            certificate="inventories/mypool/ca.crt",
        )
    """
    state, path = shared_fact(NodeCertificate, stem=stem), f"{stem}.crt"
    # While a run is prepared there may be no key to sign yet; the run itself makes it first.
    if state is None or state.request is None:
        yield unreadable(f"{path} and its key")
        return
    now = datetime.now(UTC)
    try:
        subject = _subject(pool, roles)
        steps = plan(subject, state, state.request, read_certificate(Path(certificate)), now)
        if steps.reasons:
            authority = load_authority(Path(key), Path(certificate))
            steps = Steps(File(pem([sign(authority, state.request, subject, now)])), steps.reasons)
    except PpnError as error:
        yield fail(str(error))
        return
    if steps.file is None:
        host.noop(f"{path} is good")
        return
    if steps.reasons:
        host.log(f"a certificate is signed for {host.name}: {', '.join(steps.reasons)}")
    yield installed({path: steps.file})


def _subject(pool: Pool, roles: Collection[str] | None) -> Subject:
    node = pool.node(host.name)
    return Subject(node.name, node.address, node.roles if roles is None else frozenset(roles))


@dataclass(frozen=True)
class Steps:
    """What has to be done to a certificate.

    Args:
        file: to write, if that is already known.
        reasons: why another has to be signed; empty when none has.
    """

    file: File | None = None
    reasons: tuple[str, ...] = ()


def plan(
    subject: Subject,
    state: CertificateState,
    request: x509.CertificateSigningRequest,
    authority: x509.Certificate,
    now: datetime,
) -> Steps:
    """What makes a node's certificate as wanted.

    Args:
        subject: whom it should name.
        state: what the node has.
        request: made with the node's key.
        authority: who should have signed it.
        now: with a time zone.
    """
    reasons = reasons_to_sign(state.certificate, request, subject, authority, now)
    if reasons or state.certificate is None:
        return Steps(reasons=reasons)
    file = File(pem([state.certificate]))
    return Steps() if state.file == file.status else Steps(file)


def installed(files: dict[str, File]) -> StringCommand:
    """The command that writes files, all of them or none."""
    text = payload(files, tuple(files))
    return StringCommand("python3", "-I", "-c", QuoteString(INSTALLER), _stdin=text)
