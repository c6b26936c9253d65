"""`ppn ledger`: make the operator's key, sign grants, look at a ledger, put it on a node."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ppn.cli.output import AsJson, print_json
from ppn.errors import Refusal
from ppn.host.paths import Paths
from ppn.pool import keys, store
from ppn.pool.ledger import DEFAULT_WEIGHT, Change, Grant, Ledger, Withdrawal, read

ledger_app = typer.Typer(
    name="ledger",
    help="The capability ledger: each VM's CPU weight and balloon minimum, signed by the operator.",
    no_args_is_help=True,
)

NODE = Paths.from_environment()

LedgerFile = Annotated[
    Path,
    typer.Option(
        "--ledger", envvar="PPN_LEDGER", help="The ledger file; by default this node's copy."
    ),
]
OwnLedgerFile = Annotated[
    Path,
    typer.Option("--ledger", envvar="PPN_LEDGER", help="The pool's ledger, on your machine."),
]
TrustedFile = Annotated[
    Path,
    typer.Option(
        "--trusted",
        envvar="PPN_OPERATOR_PUB",
        help="The operator's public key; by default the one this node trusts.",
    ),
]
KeyFile = Annotated[
    Path,
    typer.Option("--key", envvar="PPN_OPERATOR_KEY", help="The operator's private key file."),
]


@ledger_app.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="Where the private key goes; the folder exists.")],
    public: Annotated[
        Path | None, typer.Option(help="Where the public key goes; by default KEY.pub.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the operator's key pair: KEY (mode 0600) and KEY.pub (or the file of --public).

    Do this once for each pool, on your own machine. The private key signs every grant and never
    leaves that machine: keep a copy where you keep such things. The public key goes to the nodes.
    No existing file is replaced.

    Exit codes: 0 made; 1 a file is in the way, or the folder cannot be written.

    Example: ppn ledger keygen ~/mypool/operator.key
    """
    public = public or keys.public_path(key)
    made = keys.generate(key, public)
    if as_json:
        print_json({"key": str(key), "public": str(public), "sha256": keys.fingerprint(made)})
        return
    typer.echo(f"private key  {key} (mode 0600: stays on this machine)")
    typer.echo(f"public key   {public} (goes to the nodes)")
    typer.echo(f"sha256       {keys.fingerprint(made)}")


@ledger_app.command()
def show(
    ledger: LedgerFile = NODE.ledger,
    trusted: TrustedFile = NODE.operator_key,
    as_json: AsJson = False,
) -> None:
    """Verify a ledger and print the grants in force.

    A ledger that does not exist grants nothing. One that does not verify is not shown: see
    `ppn ledger verify`.

    Exit codes: 0 shown; 1 damaged or not readable.

    Example: ppn ledger show --json
    """
    found = store.load(ledger, keys.load_public(trusted))
    rows = _rows(found)
    if as_json:
        print_json({"entries": len(found.entries), "head": found.head, "grants": rows})
        return
    table = Table("vm", "weight", "minimum MiB", "since", "entries", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    typer.echo(f"{len(rows)} VMs, {len(found.entries)} entries, head {found.head}")


@ledger_app.command("set")
def set_(
    vm: Annotated[str, typer.Argument(help="The VM's name.")],
    ledger: OwnLedgerFile,
    key: KeyFile,
    weight: Annotated[
        int | None,
        typer.Option(help="CPU weight, 1 to 10000; without it as it is, 100 for a new VM."),
    ] = None,
    minimum: Annotated[
        int | None,
        typer.Option(help="Balloon minimum in MiB; without it as it is, needed for a new VM."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a VM's CPU weight and balloon minimum, on the operator's machine.

    What is as wanted already adds no entry. The ledger takes force on a node at the next run of
    the pool's deploy. A VM that stands in the inventory is set from there: that run would sign the
    inventory's values again.

    Exit codes: 0 signed or already so; 1 the ledger or the key is unusable; 3 refused.

    Example: ppn ledger set web --weight 300 --minimum 128 --ledger ledger.jsonl --key operator.key
    """
    private = keys.load_private(key)
    now = store.load(ledger, private.public_key()).latest(vm)
    if minimum is None and now is None:
        raise Refusal(
            f"VM {vm} has no balloon minimum",
            code="minimum_missing",
            constraint="balloon minimum",
            hint="give it with --minimum; the VM's whole memory means that it never shrinks",
        )
    base = now or Grant(vm, DEFAULT_WEIGHT, 0)
    wanted = Grant(
        vm,
        base.weight if weight is None else weight,
        base.minimum_mib if minimum is None else minimum,
    )
    changed = store.extend(ledger, private, {vm: wanted}, datetime.now(UTC))
    if as_json:
        print_json({**asdict(wanted), "changed": bool(changed)})
        return
    typer.echo(
        f"{vm}: weight {wanted.weight}, minimum {wanted.minimum_mib} MiB, {_outcome(changed)}"
    )


@ledger_app.command()
def withdraw(
    vm: Annotated[str, typer.Argument(help="The VM's name.")],
    ledger: OwnLedgerFile,
    key: KeyFile,
    as_json: AsJson = False,
) -> None:
    """Sign the end of a VM's grant, on the operator's machine.

    The entry stays in the ledger, as all do, and no longer counts. For a VM without a grant
    nothing is added.

    Exit codes: 0 signed or already so; 1 the ledger or the key is unusable; 3 refused.

    Example: ppn ledger withdraw web --ledger ledger.jsonl --key operator.key
    """
    changed = store.extend(ledger, keys.load_private(key), {vm: Withdrawal(vm)}, datetime.now(UTC))
    if as_json:
        print_json({"vm": vm, "changed": bool(changed)})
        return
    typer.echo(f"{vm}: no grant, {_outcome(changed)}")


@ledger_app.command()
def verify(
    ledger: LedgerFile = NODE.ledger,
    trusted: TrustedFile = NODE.operator_key,
    as_json: AsJson = False,
) -> None:
    """Verify every entry of a ledger and its chain, offline.

    Prints the number of entries and the head. Two copies with the same head are the same; a copy
    that was cut at the end of a line verifies, but has another head.

    Exit codes: 0 sound; 1 missing, or damaged: the error names the first entry that broke.

    Example: ppn ledger verify --ledger ledger.jsonl --trusted operator.key.pub
    """
    key = keys.load_public(trusted)
    data = store.read_bytes(ledger)
    if data is None:
        raise store.LedgerUnavailable(
            f"there is no ledger at {ledger}",
            code="ledger_missing",
            hint="name it with --ledger; on a node, the pool's deploy puts it there",
        )
    found = read(data, key)
    if as_json:
        print_json({"ok": True, "entries": len(found.entries), "head": found.head})
        return
    typer.echo(f"{ledger}: {len(found.entries)} entries, all sound, head {found.head}")


@ledger_app.command()
def install(as_json: AsJson = False) -> None:
    """Put a whole ledger, read from standard input, in force on this node.

    It is verified with the key in /etc/ppn/operator.pub, must contain every entry of the present
    one, and replaces it atomically. Of a damaged present ledger the entries before the damage
    count.

    Exit codes: 0 in force (or was already); 1 damaged or not readable; 3 it would take back or
    rewrite entries.

    Example: ppn ledger install < ledger.jsonl
    """
    # All of it first: who writes into the pipe must not meet a closed end.
    data = sys.stdin.buffer.read(store.MAX_LEDGER_BYTES + 1)
    store.check_size(data, "standard input")
    done = store.install(NODE.ledger, data, keys.load_public(NODE.operator_key))
    if as_json:
        print_json(
            {
                "changed": done.changed,
                "entries": len(done.ledger.entries),
                "head": done.ledger.head,
                "repaired": done.repaired.as_dict() if done.repaired else None,
            }
        )
        return
    if done.repaired:
        typer.echo(f"the ledger that was here is replaced: {done.repaired.message}", err=True)
    state = "installed" if done.changed else "already in force"
    typer.echo(f"{state}: {len(done.ledger.entries)} entries, head {done.ledger.head}")


def _rows(ledger: Ledger) -> list[dict[str, object]]:
    """The grants in force by VM name, with the time of the latest entry and how many there were."""
    counts = Counter(entry.vm for entry in ledger.entries)
    return [
        {
            "vm": vm,
            "weight": entry.weight,
            "minimum_mib": entry.minimum_mib,
            "since": entry.time,
            "entries": counts[vm],
        }
        for vm, entry in sorted(ledger.grants.items())
    ]


def _outcome(changes: tuple[Change, ...]) -> str:
    return "signed" if changes else "already so"
