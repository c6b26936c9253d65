"""`ppn audit`: read a log, verify it whole, prove a tenant's entries, compare checkpoints."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppn.audit.entry import Outcome
from ppn.errors import PpnError

if TYPE_CHECKING:
    from ppn.audit.entry import Entry
    from ppn.audit.note import Verifier
    from ppn.audit.read import Filter
    from ppn.audit.verify import Known, Report

audit_app = typer.Typer(
    name="audit",
    help="The audit log: who changed what; verify it, prove it, compare what others know of it.",
    no_args_is_help=True,
)

EXIT_DAMAGED = 1
MAX_FILE_BYTES = 256 << 20

Folder = Annotated[Path, typer.Argument(help="The log's folder.")]
Key = Annotated[
    Path, typer.Option("--key", help="The log's public key: a file of one line, `NAME+ID+KEY`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Tenant = Annotated[str | None, typer.Option(help="Only entries of this tenant.")]
Vm = Annotated[str | None, typer.Option(help="Only entries about this VM.")]
Operation = Annotated[str | None, typer.Option(help="Only this operation, for example create.")]
OfOutcome = Annotated[Outcome | None, typer.Option(help="Only entries of this outcome.")]
Correlation = Annotated[
    str | None, typer.Option("--correlation-id", help="Only entries of this request.")
]
Since = Annotated[datetime | None, typer.Option(help="Not before this time (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Before this time (UTC).")]


class FileUnusable(PpnError):
    """A file that a command was given and cannot use."""

    code = "file_unusable"


@audit_app.command()
def verify(
    folder: Folder,
    key: Key,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint of this log that was kept elsewhere; may be repeated."),
    ] = None,
    witness_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="What a witness answers to GET /v1/logs, or a note it signed; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a whole log, offline: journal, tiles, checkpoint, and what others know of it.

    A torn tail is no damage: a crash left it, nobody was told that it was written, and the log's
    next start cuts it off. Without a checkpoint that was kept elsewhere, a log that its own host
    rewrote from the start cannot be told from the real one.

    Exit codes: 0 sound; 1 damaged: each finding has a code, see docs/audit.md.

    Example: ppn audit verify /var/lib/ppn-tenant/audit --key audit.key.vkey
    """
    from ppn.audit.verify import verify as verify_log

    trusted = _trusted(key)
    known = list(_known(trusted, folder, checkpoint or (), witness_file or ()))
    report = verify_log(folder, trusted, known)
    if as_json:
        typer.echo(json.dumps(_report_fields(report) | {"compared": [one.where for one in known]}))
    else:
        for one in report.findings:
            typer.echo(f"DAMAGED  {one.message} ({one.code})")
        if report.torn_bytes:
            typer.echo(f"torn tail of {report.torn_bytes} bytes, which nobody was told of")
        state = "damaged" if report.findings else "all sound"
        typer.echo(f"{report.origin}: {report.size} entries, {state}, root {report.root.hex()}")
        typer.echo(f"compared with {len(known)} checkpoints that others keep")
    if report.findings:
        raise typer.Exit(EXIT_DAMAGED)


@audit_app.command()
def prove(
    folder: Folder,
    key: Key,
    tenant: Annotated[str, typer.Option(help="Whose entries.")],
) -> None:
    """Print a bundle that proves one tenant's entries, and shows nobody else's.

    It covers what is published: all entries but those of the last second. Who is given the bundle
    checks it with `ppn audit check`, the log's public key and nothing else.

    Exit codes: 0 printed; 1 the log is damaged or not published.

    Example: ppn audit prove FOLDER --key audit.key.vkey --tenant acme > acme.json
    """
    from ppn.audit import proof

    typer.echo(proof.prove(folder, _trusted(key), tenant).model_dump_json())


@audit_app.command()
def check(
    bundle: Annotated[Path, typer.Argument(help="What `ppn audit prove` printed.")],
    key: Key,
    witness: Annotated[
        list[Path] | None,
        typer.Option(help="Public key of a witness that must have signed; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle of proofs, offline, and print the entries it proves.

    A bundle cannot show that no entry was left out of it.

    Exit codes: 0 all proven; 1 something in it is not.

    Example: ppn audit check acme.json --key audit.key.vkey
    """
    from ppn.audit import proof

    witnesses = [_trusted(path) for path in witness or ()]
    found = proof.check(proof.parse_bundle(_read(bundle)), _trusted(key), witnesses)
    if as_json:
        rows = [_row(index, entry) for index, entry in found.entries]
        fields = {"ok": True, "tenant": found.tenant, "entries": rows}
        size, root = found.checkpoint.size, found.checkpoint.root.hex()
        typer.echo(json.dumps({**fields, "size": size, "root": root, "witnesses": found.witnesses}))
        return
    _print(found.entries)
    signers = "".join(f" and by {name}" for name in found.witnesses)
    typer.echo(
        f"{len(found.entries)} entries of {found.tenant}, all in the log of"
        f" {found.checkpoint.size} entries signed by {found.checkpoint.origin}{signers}"
    )


@audit_app.command()
def show(
    folder: Folder,
    tenant: Tenant = None,
    vm: Vm = None,
    operation: Operation = None,
    outcome: OfOutcome = None,
    correlation_id: Correlation = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the first ones.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Print entries of a log, the oldest first; with --json one object on each line.

    Nothing is verified: see `ppn audit verify`.

    Exit codes: 0 printed; 1 no log there, or a line that is no entry.

    Example: ppn audit show /var/lib/ppn-tenant/audit --json
    """
    from ppn.audit.read import Filter, entries

    wanted = Filter(tenant, vm, operation, outcome, correlation_id, _utc(since), _utc(until))
    _print(islice(entries(folder, wanted), limit), as_json=as_json)


@audit_app.command()
def tail(
    folder: Folder,
    tenant: Tenant = None,
    vm: Vm = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is appended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the last entries of a log; with --json one object on each line.

    Exit codes: 0 printed; 1 no log there, or a line that is no entry.

    Example: ppn audit tail /var/lib/ppn-tenant/audit
    """
    from ppn.audit.read import Filter, entries

    wanted: Filter = Filter(tenant, vm)
    last = deque(entries(folder, wanted), maxlen=lines)
    _print(last, as_json=as_json)
    if follow:
        behind = last[-1][0] if last else -1
        fresh = (one for one in entries(folder, wanted, follow=True) if one[0] > behind)
        _print(fresh, as_json=as_json)


@audit_app.command()
def fork(
    first: Annotated[Path, typer.Argument(help="A checkpoint: a signed note.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same log.")],
    key: Key,
    log: Annotated[
        Path | None, typer.Option(help="The log's folder: needed when the two sizes differ.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two signed checkpoints of one log: are they proof that it has two histories?

    Exit codes: 0 they go together; 1 a fork (`audit_fork`), or it cannot be told (`undecided`).

    Example: ppn audit fork earlier.checkpoint later.checkpoint --key audit.key.vkey
    """
    from ppn.audit.checkpoint import verified
    from ppn.audit.fork import compare

    trusted = _trusted(key)
    one, other = (verified(_read(path), trusted) for path in (first, second))
    found = compare(one, other, trusted, log)
    sizes = [found.first.size, found.second.size]
    roots = [found.first.root.hex(), found.second.root.hex()]
    if as_json:
        fields = {"verdict": found.verdict, "sizes": sizes, "roots": roots}
        typer.echo(json.dumps({**fields, "against": found.against}))
    else:
        words = {
            "fork": "FORK: the log signed two histories; the two files are the proof (audit_fork)",
            "same": "the same",
            "consistent": "consistent: the log holds both",
            "undecided": "undecided: give the sound log with --log",
        }
        typer.echo(words[found.verdict])
        for size, root in zip(sizes, roots, strict=True):
            typer.echo(f"  {size} entries, root {root}")
        for text in found.against:
            typer.echo(f"  {text}")
    if found.verdict in ("fork", "undecided"):
        raise typer.Exit(EXIT_DAMAGED)


@audit_app.command()
def forget(
    origin: Annotated[str, typer.Argument(help="The log's name, for example ppn/audit/relay.")],
    folder: Annotated[Path, typer.Option(help="The witness's folder.")] = Path(
        "/var/lib/ppn-witness"
    ),
    as_json: AsJson = False,
) -> None:
    """Let this node's witness accept a log anew: after its memory was lost, or the log began anew.

    From then on it signs whatever history the log shows first. Compare the log with what others
    know before (`ppn audit verify`). The witness must be stopped; what it knew is kept beside it.

    Exit codes: 0 it accepts the log anew; 1 it runs, or its folder cannot be written.

    Example: ppn audit forget ppn/audit/relay
    """
    from ppn.audit.witness.store import Store
    from ppn.lock import folder_lock
    from ppn.owner import acting_as_owner

    with acting_as_owner(folder, "witness"), folder_lock(folder, timeout=1.0):
        known = Store(folder).forget(origin, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if as_json:
        typer.echo(json.dumps({"ok": True, "origin": origin, "known": known}))
        return
    was = "is forgotten" if known else "was not known"
    typer.echo(f"{origin} {was}: start the witness, and it takes the history that it is shown")


def _report_fields(report: Report) -> dict[str, object]:
    return {
        "ok": not report.findings,
        "origin": report.origin,
        "entries": report.size,
        "root": report.root.hex(),
        "published": report.published,
        "torn_bytes": report.torn_bytes,
        "findings": [one.as_dict() for one in report.findings],
    }


def _known(
    trusted: Verifier, folder: Path, checkpoints: Iterable[Path], witness_files: Iterable[Path]
) -> Iterable[Known]:
    """What others know of a log: signed notes, and witnesses' answers."""
    from ppn.audit.checkpoint import verified
    from ppn.audit.proof import COSIGNED
    from ppn.audit.verify import Known

    own = sorted((folder / COSIGNED).glob("*.note"))
    for path in (*checkpoints, *own):
        yield Known(str(path), verified(_read(path), trusted))
    for path in witness_files:
        data = _read(path)
        if not data.startswith(b"["):
            yield Known(str(path), verified(data, trusted))
            continue
        for kept in _logs(path, data):
            if kept.get("origin") == trusted.name and kept.get("checkpoint"):
                yield Known(str(path), verified(str(kept["checkpoint"]).encode(), trusted))


def _logs(path: Path, data: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise FileUnusable(f"{path} is no answer of a witness to GET /v1/logs") from error
    return [one for one in found if isinstance(one, dict)]


def _trusted(path: Path) -> Verifier:
    from ppn.audit.note import parse_verifier

    return parse_verifier(_read(path).decode("utf-8", errors="replace"))


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise FileUnusable(
            f"cannot read {path}: {error.strerror}", hint="name a file that is there"
        ) from error


def _print(found: Iterable[tuple[int, Entry]], *, as_json: bool = False) -> None:
    for index, entry in found:
        if as_json:
            typer.echo(json.dumps(_row(index, entry)))
            continue
        what = f"{entry.operation} {json.dumps(entry.vm)[1:-1] or '-'}"
        result = entry.outcome + (f" ({entry.code})" if entry.code else "")
        if entry.of is not None:
            result += f" of {entry.of}"
        if entry.count > 1:
            result += f", {entry.count} times"
        who = f"{json.dumps(entry.tenant)[1:-1] or '-'} from {json.dumps(entry.source)[1:-1]}"
        typer.echo(f"{index:>7}  {entry.at:%Y-%m-%d %H:%M:%S}  {who}: {what}: {result}")


def _row(index: int, entry: Entry) -> dict[str, object]:
    return {"index": index, **asdict(entry), "at": entry.at.isoformat()}


def _utc(value: datetime | None) -> datetime | None:
    """Times on the command line carry no zone."""
    return None if value is None else value.replace(tzinfo=UTC)
