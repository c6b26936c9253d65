"""Operations on the capability ledger: signed on the operator's machine, copied whole to nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.host_state import PROGRAM
from facts.ledger import LEDGER, OPERATOR_KEY, LedgerCopy, LedgerOnNode, NodeLedger
from operations.failure import fail, unreadable
from ppn.errors import PpnError
from ppn.pool import keys, store
from ppn.pool.ledger import EMPTY, Change, Ledger, check_extension, pending, read

# A hard link, unlike a rename, fails when the name is taken; the digest finds a cut connection.
PLACE_KEY = rf"""set -eu
umask 022
folder="${{PPN_ROOT:-}}{Path(OPERATOR_KEY).parent}"
mkdir -p "$folder"
new=$(mktemp "$folder/.operator.pub.XXXXXX")
trap 'rm -f "$new"' EXIT
cat > "$new"
chmod 0644 "$new"
echo "$1  $new" | sha256sum --check --quiet
sync "$new"
ln -T "$new" "${{PPN_ROOT:-}}{OPERATOR_KEY}"
sync "$folder" """


class LedgerConflict(PpnError):
    """What this machine has and what the node has do not go together."""

    code = "ledger_conflict"


@operation()
def operator_key(public: str) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare the key that a node trusts ledgers by.

    A node that trusts another key already is refused: a new key means a new ledger.

    + public: the operator's public key file on this machine.

    **Example:**

    .. code:: python

        ledger.operator_key(name="Key the ledger is trusted by", public="operator.pub")
    """
    node = host.get_fact(LedgerOnNode)
    if node is None:
        yield unreadable(f"{OPERATOR_KEY} of this node")
        return
    try:
        key = keys.load_public(Path(public))
        same_key(node, key)
    except PpnError as error:
        yield fail(str(error))
        return
    if node.key_sha256 is not None:
        host.noop(f"{OPERATOR_KEY} is the operator's key")
        return
    yield StringCommand(
        "sh",
        "-c",
        QuoteString(PLACE_KEY),
        "ppn-operator-key",
        keys.fingerprint(key),
        _stdin=keys.public_pem(key).decode("ascii"),
    )


@operation()
def declared(
    changes: Mapping[str, Change], ledger: str, key: str, public: str | None = None
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare what the capability ledger says of VMs, and that a node has this ledger.

    What the ledger lacks is signed and appended on this machine, once in a run: by the first host
    that comes to it. Then each node whose copy is another gets the whole ledger. A node that has
    more or other entries than this machine is refused before anything is signed.

    + changes: per VM of the whole pool its grant or its withdrawal.
    + ledger: the pool's ledger file on this machine; made when it does not exist.
    + key: the operator's private key file on this machine; read only when there is to be signed.
    + public: the operator's public key file; when not given it is taken from the private key.

    **Example:**

    .. code:: python

        ledger.declared(
            name="Capability ledger",
            changes={"web": Grant("web", weight=300, minimum_mib=512)},
            ledger="inventories/mypool/ledger.jsonl",
            key="/home/me/.config/ppn/operator.key",
        )
    """
    node = host.get_fact(LedgerOnNode)
    if node is None:
        yield unreadable(f"{LEDGER} of this node")
        return
    try:
        missing = check(node, changes, Path(ledger), Path(key), public)
    except PpnError as error:
        yield fail(str(error))
        return
    if missing:
        yield FunctionCommand(sign, (Path(ledger), Path(key), changes), {})
    try:
        data = store.read_bytes(Path(ledger))
    except PpnError as error:
        yield fail(str(error))
        return
    if data is None or same_bytes(node, data):
        host.noop(f"{LEDGER} is the pool's ledger")
        return
    yield StringCommand(PROGRAM, "ledger install", _stdin=data.decode("ascii"))


def check(
    node: NodeLedger, changes: Mapping[str, Change], path: Path, key: Path, public: str | None
) -> tuple[Change, ...]:
    """What must be signed; refuses whatever would make signing or installing fail.

    Args:
        node: what the node has.
        changes: per VM of the whole pool what should be in force.
        path: the pool's ledger on this machine.
        key: the operator's private key file.
        public: the operator's public key file, if there is one.

    Raises:
        PpnError: a key is unusable, a ledger is damaged, or the node's is no part of this one.
    """
    trusted = keys.load_public(Path(public)) if public else keys.load_private(key).public_key()
    same_key(node, trusted)
    data = store.read_bytes(path)
    current = EMPTY if data is None else verified(data, keys.public_pem(trusted))
    check_copy(node, data, path, trusted)
    missing = pending(current, changes)
    if missing and keys.fingerprint(keys.load_private(key).public_key()) != keys.fingerprint(
        trusted
    ):
        raise keys.KeyUnusable(
            f"{public} is not the public key of {key}",
            code="key_mismatch",
            hint="give the two halves of one pair",
        )
    return missing


def same_key(node: NodeLedger, key: Ed25519PublicKey) -> None:
    """Refuse a node that trusts another key.

    Raises:
        LedgerConflict: with both fingerprints.
    """
    wanted = keys.fingerprint(key)
    if node.key_sha256 not in (None, wanted):
        raise LedgerConflict(
            f"this node trusts the operator key with SHA-256 {node.key_sha256}, not {wanted}",
            code="operator_key_differs",
            hint="if the pool's key was replaced on purpose, remove "
            f"{OPERATOR_KEY} and {LEDGER} on this node and run again",
        )


def check_copy(node: NodeLedger, data: bytes | None, path: Path, trusted: Ed25519PublicKey) -> None:
    """Refuse to go on from a ledger that is older than the node's, or another.

    Signing on top of an outdated ledger would make two histories out of one.

    Raises:
        PpnError: what differs, from which entry on.
    """
    if node.ledger is None:
        return
    if data is None:
        raise LedgerConflict(
            f"this node has a ledger of {node.ledger.size} bytes, but there is none at {path}",
            code="ledger_missing",
            hint=f"copy the longest {LEDGER} of the nodes to {path}",
        )
    if hashlib.sha256(data[: node.ledger.size]).hexdigest() == node.ledger.sha256:
        return
    present = host.get_fact(LedgerCopy)
    if present is None:
        raise LedgerConflict(
            f"{LEDGER} is not a part of {path}, and cannot be read to see why",
            hint="run with -vv to see the command that failed",
        )
    check_extension(present, data, trusted)


def same_bytes(node: NodeLedger, data: bytes) -> bool:
    """Whether the node's ledger is this one."""
    return node.ledger is not None and node.ledger.sha256 == hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=4)
def verified(data: bytes, public_pem: bytes) -> Ledger:
    """A ledger, verified once in a run and not once for each host.

    Raises:
        LedgerDamaged: with the kind of damage and the entry's number.
    """
    key = load_pem_public_key(public_pem)
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError("not an Ed25519 public key")
    return read(data, key)


def sign(state: State, host: Host, path: Path, key: Path, changes: Mapping[str, Change]) -> bool:
    """Append what the ledger still lacks; runs on this machine, for a host that goes first.

    Args:
        state, host: pyinfra's; their presence makes the returned value the status.
        path: the pool's ledger.
        key: the operator's private key file.
        changes: per VM of the whole pool what should be in force.

    Returns:
        Whether the ledger is as wanted now.
    """
    try:
        signed = store.extend(path, keys.load_private(key), changes, datetime.now(UTC))
    except PpnError as error:
        host.log_styled(str(error), fg="red")
        return False
    for change in signed:
        host.log(f"signed: {change}")
    return True
