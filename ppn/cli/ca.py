"""`ppn ca`: the pool's certificate authority, on the operator's machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from rich.console import Console
from rich.table import Table

from ppn.cli.output import AsJson, print_json
from ppn.durable import write_atomic
from ppn.pool import certificates, keys
from ppn.pool.certificates import CertificateUnusable, Subject

ca_app = typer.Typer(
    name="ca",
    help="The pool's certificate authority: it says which services may speak to each other.",
    no_args_is_help=True,
)

KeyFile = Annotated[
    Path,
    typer.Option("--key", envvar="PPN_CA_KEY", help="The authority's private key file."),
]
CertificateFile = Annotated[
    Path,
    typer.Option("--certificate", envvar="PPN_CA_CERTIFICATE", help="The authority's certificate."),
]


@ca_app.command()
def init(
    key: Annotated[Path, typer.Argument(help="Where the private key goes; the folder exists.")],
    certificate: Annotated[Path, typer.Option(help="Where the certificate goes.")],
    title: Annotated[str, typer.Option("--name", help="What the authority is called.")] = "ppn",
    as_json: AsJson = False,
) -> None:
    """Make the pool's authority: KEY (mode 0600), KEY.pub and its certificate.

    Do this once for each pool, on your own machine. The key signs the nodes' certificates during
    the pool's deploy and never leaves that machine. No existing file is replaced.

    Exit codes: 0 made; 1 a file is in the way, or a folder cannot be written.

    Example: ppn ca init ~/mypool/ca.key --certificate ~/mypool/ca.crt
    """
    if certificate.exists() or certificate.is_symlink():
        raise CertificateUnusable(
            f"{certificate} exists and is not replaced: nodes may trust it",
            code="certificate_exists",
            hint="use it with its key, or give the new one another name",
        )
    keys.generate(key, keys.public_path(key))
    now = datetime.now(UTC)
    made = certificates.authority_certificate(keys.load_private(key), title, now)
    _write(certificate, certificates.pem([made]))
    sha256 = certificates.fingerprint(made)
    if as_json:
        print_json({"key": str(key), "certificate": str(certificate), "sha256": sha256})
        return
    typer.echo(f"private key  {key} (mode 0600: stays on this machine)")
    typer.echo(f"certificate  {certificate} (goes to the nodes)")
    typer.echo(f"sha256       {sha256}")


@ca_app.command()
def sign(
    request: Annotated[Path, typer.Argument(help="A signing request in PEM.")],
    key: KeyFile,
    certificate: CertificateFile,
    node: Annotated[str, typer.Option(help="Whom the certificate will name.")],
    output: Annotated[Path, typer.Option(help="Where the new certificate goes.")],
    address: Annotated[
        str | None, typer.Option(help="The mesh address; without it any listed one will do.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long it holds.")] = 397,
    as_json: AsJson = False,
) -> None:
    """Sign a request by hand; the pool's deploy does this for every node by itself.

    Only a key made elsewhere is signed: `openssl genpkey -algorithm ed25519 -out KEY`, then
    `openssl req -new -key KEY -subj / -out REQUEST`. An existing certificate is replaced.

    Exit codes: 0 signed; 1 the request, the key or the certificate is unusable.

    Example: ppn ca sign me.csr --key ca.key --certificate ca.crt --node me --role operator
    --output me.crt
    """
    authority = certificates.load_authority(key, certificate)
    subject = Subject(
        node,
        None if address is None else certificates.parse_address(address),
        frozenset(role or []),
    )
    found = certificates.request_from_pem(_read(request))
    made = certificates.sign(authority, found, subject, datetime.now(UTC), timedelta(days=days))
    _write(output, certificates.pem([made]))
    if as_json:
        print_json({"output": str(output), **_row(made)})
        return
    typer.echo(f"{output}: {_title(made)}, until {made.not_valid_after_utc:%Y-%m-%d}")


@ca_app.command()
def show(
    bundle: Annotated[Path, typer.Argument(help="Certificates in PEM: one, or a trust bundle.")],
    as_json: AsJson = False,
) -> None:
    """Show every certificate of a file: whom it names, its roles, until when, who signed it.

    Exit codes: 0 shown; 1 missing or damaged.

    Example: ppn ca show /etc/ppn/tls/node.crt
    """
    rows = [_row(one) for one in certificates.read_bundle(bundle)]
    if as_json:
        print_json({"certificates": rows})
        return
    table = Table("of", "address", "roles", "until", "due", "signed by", box=None, pad_edge=False)
    for row in rows:
        cells = (row[key] for key in ("of", "address", "roles", "until", "due", "issuer"))
        table.add_row(*(" ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells))
    Console().print(table)


def _row(certificate: x509.Certificate) -> dict[str, object]:
    subject = certificates.subject_of(certificate)
    return {
        "of": _title(certificate),
        "authority": certificates.is_authority(certificate),
        "address": str(subject.address) if subject and subject.address else "",
        "roles": sorted(subject.roles) if subject else [],
        "until": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "due": certificates.is_due(certificate, datetime.now(UTC)),
        "issuer": certificate.issuer.rfc4514_string(),
        "sha256": certificates.fingerprint(certificate),
    }


def _title(certificate: x509.Certificate) -> str:
    subject = certificates.subject_of(certificate)
    return subject.node if subject else certificate.subject.rfc4514_string()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()[: certificates.MAX_PEM_BYTES]
    except OSError as error:
        raise CertificateUnusable(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise CertificateUnusable(
            f"cannot write {path}: {error.strerror}",
            hint=f"make the folder first: `mkdir -p {path.parent}`",
        ) from error
