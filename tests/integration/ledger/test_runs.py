"""The ledger's operations, really run: pyinfra, a shell, `ppn`, and a node below a folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.facts import get_fact
from pyinfra.api.operation import OperationMeta, add_op
from pyinfra.api.operations import run_ops

import operations.ledger
from facts.ledger import LedgerCopy, LedgerFile, LedgerOnNode, NodeLedger
from ppn.pool import keys
from ppn.pool.ledger import Change, Grant, Withdrawal, append, read
from tests.unit.pool.samples import KEY, NOW, OTHER_KEY, ledger, lines

WEB: dict[str, Change] = {"web": Grant("web", 300, 512), "gone": Withdrawal("gone")}


class Pool:
    """An operator's folder, and nodes below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "operator.key"
        self.public = folder / "operator.pub"
        self.ledger = folder / "ledger.jsonl"
        keys.generate(self.key, self.public)

    def node_ledger(self, node: str = "node") -> Path:
        """A node's copy."""
        return self.folder / node / "var/lib/ppn/ledger.jsonl"

    def node_key(self, node: str = "node") -> Path:
        """The key a node trusts."""
        return self.folder / node / "etc/ppn/operator.pub"

    def environment(self, node: str) -> dict[str, str]:
        """What makes a run act on this node's files."""
        return {"PPN_ROOT": str(self.folder / node)}

    def add_key(self, state: State, node: str = "node") -> OperationMeta:
        """Declare the trusted key."""
        made: Mapping[Any, OperationMeta] = add_op(
            state,
            operations.ledger.operator_key,
            public=str(self.public),
            _env=self.environment(node),
        )
        return next(iter(made.values()))

    def add_ledger(
        self, state: State, changes: Mapping[str, Change], node: str = "node", public: bool = False
    ) -> OperationMeta:
        """Declare the ledger."""
        made: Mapping[Any, OperationMeta] = add_op(
            state,
            operations.ledger.declared,
            changes=changes,
            ledger=str(self.ledger),
            key=str(self.key),
            public=str(self.public) if public else None,
            _env=self.environment(node),
        )
        return next(iter(made.values()))

    def files(self) -> dict[str, str]:
        """Every file with its digest."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool with its key and no ledger yet; `ppn` on the node is this checkout's."""
    monkeypatch.setattr(operations.ledger, "PROGRAM", str(Path(sys.executable).parent / "ppn"))
    return Pool(tmp_path)


def connected() -> State:
    """A pyinfra run against this machine."""
    state = State(Inventory((["@local"], {})), Config())
    connect_all(state)
    return state


def converge(pool: Pool, changes: Mapping[str, Change]) -> tuple[bool, bool]:
    """One run of both operations; whether each changed what it had announced."""
    state = connected()
    made = (pool.add_key(state), pool.add_ledger(state, changes))
    announced = tuple(bool(meta.will_change) for meta in made)
    run_ops(state)
    assert announced == tuple(meta.did_change() for meta in made)
    return announced[0], announced[1]


def refused(state: State, meta: OperationMeta, caplog: pytest.LogCaptureFixture) -> str:
    """The message of an operation that must fail its host."""
    assert meta.will_change
    caplog.set_level("INFO")
    with pytest.raises(PyinfraError):
        run_ops(state)
    assert not meta.did_succeed()
    return caplog.text


def test_first_run_changes_second_does_not(pool: Pool) -> None:
    """LED-01, CPU-03: the inventory's weight reaches the node, a second run sends nothing."""
    assert converge(pool, WEB) == (True, True)
    assert pool.node_key().read_bytes() == pool.public.read_bytes()
    assert pool.node_key().stat().st_mode & 0o7777 == 0o644
    assert pool.node_ledger().read_bytes() == pool.ledger.read_bytes()
    trusted = keys.load_public(pool.node_key())
    assert read(pool.node_ledger().read_bytes(), trusted).latest("web") == Grant("web", 300, 512)
    before = pool.files()
    assert converge(pool, WEB) == (False, False)
    assert pool.files() == before
    assert converge(pool, {"web": Grant("web", 400, 512)}) == (False, True)
    assert read(pool.node_ledger().read_bytes(), trusted).latest("web") == Grant("web", 400, 512)
    assert len(list(pool.node_ledger().parent.iterdir())) == 1
    assert len(list(pool.node_key().parent.iterdir())) == 1


def test_preparing_signs_nothing(pool: Pool) -> None:
    """A dry run announces the change and leaves every file as it was."""
    before = pool.files()
    state = connected()
    assert pool.add_key(state).will_change
    assert pool.add_ledger(state, WEB).will_change
    assert pool.files() == before


def test_one_run_over_two_nodes_signs_once(pool: Pool) -> None:
    """LED-01: the first node signs, the second finds nothing pending and gets the same bytes."""
    state = connected()
    made = [pool.add_key(state, "one"), pool.add_key(state, "two")]
    made += [pool.add_ledger(state, WEB, "one"), pool.add_ledger(state, WEB, "two")]
    assert all(meta.will_change for meta in made)
    run_ops(state)
    assert all(meta.did_change() for meta in made)
    data = pool.ledger.read_bytes()
    assert len(lines(data)) == 1
    assert pool.node_ledger("one").read_bytes() == pool.node_ledger("two").read_bytes() == data


def test_a_converged_pool_needs_no_private_key(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that signs nothing works with the public key alone; one that would is refused."""
    converge(pool, WEB)
    pool.key.unlink()
    state = connected()
    assert not pool.add_ledger(state, WEB, public=True).will_change
    run_ops(state)
    state = connected()
    other = {"web": Grant("web", 1, 0)}
    assert "key_missing" in refused(state, pool.add_ledger(state, other, public=True), caplog)


def test_no_vms_and_no_ledger_is_no_change(pool: Pool) -> None:
    """A pool without VMs needs no ledger."""
    assert converge(pool, {}) == (True, False)
    assert not pool.ledger.exists() and not pool.node_ledger().exists()


def test_an_edited_copy_is_put_right(pool: Pool) -> None:
    """CPU-03: a ledger edited on the node is replaced by the operator's."""
    converge(pool, WEB)
    sound = pool.ledger.read_bytes()
    for edited in (sound.replace(b"300", b"999"), sound[:-5], b"\xff\n", b""):
        pool.node_ledger().write_bytes(edited)
        assert converge(pool, WEB) == (False, True)
        assert pool.node_ledger().read_bytes() == sound


@pytest.mark.parametrize(
    ("mine", "of_node", "code"),
    [
        (ledger(3), ledger(4), "ledger_rollback"),
        (ledger(3), append(b"", KEY, (Grant("fork", 1, 0),), NOW), "ledger_fork"),
        (None, ledger(2), "ledger_missing"),
        (ledger(3)[:-1], None, "ledger_torn"),
        (ledger(3, key=OTHER_KEY), None, "ledger_bad_signature"),
    ],
)
def test_nothing_is_signed_on_a_ledger_that_is_not_the_nodes(
    pool: Pool,
    caplog: pytest.LogCaptureFixture,
    mine: bytes | None,
    of_node: bytes | None,
    code: str,
) -> None:
    """LED-01: an outdated, forked, lost or damaged ledger fails the host at once."""
    use_sample_key(pool)
    pool.node_ledger().parent.mkdir(parents=True)
    for path, data in ((pool.ledger, mine), (pool.node_ledger(), of_node)):
        if data is not None:
            path.write_bytes(data)
    before = pool.files()
    state = connected()
    assert code in refused(state, pool.add_ledger(state, WEB), caplog)
    assert pool.files() == before


def use_sample_key(pool: Pool) -> None:
    """Make the key of the sample ledgers the pool's."""
    pool.key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pool.public.write_bytes(keys.public_pem(KEY.public_key()))


def test_another_trusted_key_is_not_replaced(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """LED-01: neither operation goes on; the message has both fingerprints and the next step."""
    pool.node_key().parent.mkdir(parents=True)
    pool.node_key().write_bytes(keys.public_pem(OTHER_KEY.public_key()))
    before = pool.files()
    for add in (pool.add_key, lambda state: pool.add_ledger(state, WEB)):
        caplog.clear()
        state = connected()
        text = refused(state, add(state), caplog)
        assert "operator_key_differs" in text and "remove /etc/ppn/operator.pub" in text
        assert keys.fingerprint(OTHER_KEY.public_key()) in text
    assert pool.files() == before


@pytest.mark.parametrize("unreadable", ["node_ledger", "node_key"])
def test_an_unreadable_file_is_not_absent(pool: Pool, unreadable: str) -> None:
    """A fact that cannot read one of its files fails, it does not report it absent."""
    getattr(pool, unreadable)().mkdir(parents=True)
    with pytest.raises(PyinfraError):
        pool.add_key(connected())


def test_bad_local_keys_fail_the_host(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """A loose private key and a missing public key are refused with their codes."""
    pool.key.chmod(0o644)
    state = connected()
    assert "key_loose_mode" in refused(state, pool.add_ledger(state, WEB, public=True), caplog)
    pool.public.unlink()
    state = connected()
    assert "key_missing" in refused(state, pool.add_key(state), caplog)
    assert not pool.ledger.exists()


def test_the_private_key_is_in_no_output(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that pyinfra logs or keeps of its commands holds the private key."""
    caplog.set_level("DEBUG")
    secret = pool.key.read_text().splitlines()[1]
    converge(pool, WEB)
    assert caplog.text and secret not in caplog.text
    assert all(secret not in path.read_text() for path in pool.folder.rglob("*") if on_node(path))


def on_node(path: Path) -> bool:
    """Whether it is a file of the node."""
    return path.is_file() and "node" in path.parts


def test_the_fact_reads_what_is_there(pool: Pool) -> None:
    """Size, digest and head as common tools print them, absent, and the whole copy."""
    state = connected()
    host = next(iter(state.inventory))
    environment = pool.environment("node")

    def fact() -> object:
        return get_fact(state, host, LedgerOnNode, kwargs={"_env": environment})

    assert fact() == NodeLedger(None, None)
    data = ledger(4)
    pool.node_ledger().parent.mkdir(parents=True)
    pool.node_ledger().write_bytes(data)
    digest, head = (hashlib.sha256(part).hexdigest() for part in (data, lines(data)[-1]))
    assert fact() == NodeLedger(LedgerFile(len(data), digest, head), None)
    assert get_fact(state, host, LedgerCopy, kwargs={"_env": environment}) == data
    pool.node_key().parent.mkdir(parents=True)
    pool.node_key().write_bytes(pool.public.read_bytes())
    found = fact()
    assert isinstance(found, NodeLedger)
    assert found.key_sha256 == keys.fingerprint(keys.load_public(pool.public))
