"""What the ledger's operations would send, for each state of a node."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand
from pyinfra.api.arguments import all_argument_meta
from pyinfra.api.exceptions import PyinfraError

from facts.host_state import PROGRAM
from facts.ledger import LedgerCopy, LedgerFile, LedgerOnNode, NodeLedger, parse
from operations import ledger
from ppn.pool import keys
from ppn.pool.ledger import Change, Grant, Withdrawal, append
from tests.unit.operations.yielded import refusal, texts, yielded
from tests.unit.pool.samples import NOW

WEB: dict[str, Change] = {"web": Grant("web", 300, 512), "gone": Withdrawal("gone")}
NOTHING = NodeLedger(None, None)


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """A pool's files on the operator's machine, with a key and no ledger."""
    keys.generate(tmp_path / "operator.key", tmp_path / "operator.pub")
    return {
        "changes": WEB,
        "ledger": str(tmp_path / "ledger.jsonl"),
        "key": str(tmp_path / "operator.key"),
    }


def sign(arguments: dict[str, Any]) -> bytes:
    """Write the ledger that the declared changes make."""
    private = keys.load_private(Path(arguments["key"]))
    data = append(b"", private, (WEB["web"],), NOW)
    Path(arguments["ledger"]).write_bytes(data)
    return data


def copy_of(data: bytes) -> NodeLedger:
    """A node with these bytes."""
    head = hashlib.sha256(data.splitlines(keepends=True)[-1]).hexdigest()
    return NodeLedger(LedgerFile(len(data), hashlib.sha256(data).hexdigest(), head), None)


def test_what_is_pending_is_signed_first(arguments: dict[str, Any]) -> None:
    """LED-01: signing is the first command, so that a dry run announces it; it is not yet done."""
    commands, _ = yielded(ledger.declared, {LedgerOnNode: NOTHING}, **arguments)
    assert texts(commands)[0] == "FunctionCommand"
    assert not Path(arguments["ledger"]).exists()
    assert "PRIVATE" not in repr(commands)


def test_an_absent_or_older_copy_gets_the_whole_ledger(arguments: dict[str, Any]) -> None:
    """CPU-03: the ledger goes over standard input, byte for byte."""
    data = sign(arguments)
    commands, _ = yielded(ledger.declared, {LedgerOnNode: NOTHING}, **arguments)
    assert texts(commands) == [f"{PROGRAM} ledger install"]
    assert commands[0].connector_arguments["_stdin"].encode() == data


def test_the_same_copy_is_left_alone(arguments: dict[str, Any]) -> None:
    """A second run sends nothing."""
    data = sign(arguments)
    commands, host = yielded(ledger.declared, {LedgerOnNode: copy_of(data)}, **arguments)
    assert (commands, len(host.noops)) == ([], 1)


def test_no_vms_and_no_ledger_is_no_change(arguments: dict[str, Any]) -> None:
    """A pool without VMs needs no ledger."""
    commands, host = yielded(
        ledger.declared, {LedgerOnNode: NOTHING}, **arguments | {"changes": {}}
    )
    assert (commands, len(host.noops)) == ([], 1)


def test_an_unknown_state_is_not_acted_on(arguments: dict[str, Any], tmp_path: Path) -> None:
    """Both operations refuse on this host alone when a fact of theirs failed."""
    unknown: dict[type, Any] = {LedgerOnNode: None}
    public = str(tmp_path / "operator.pub")
    commands, _ = yielded(ledger.operator_key, unknown, public=public)
    assert "cannot read /etc/ppn/operator.pub" in refusal(commands)
    commands, _ = yielded(ledger.declared, unknown, **arguments)
    assert "cannot read /var/lib/ppn/ledger.jsonl" in refusal(commands)
    sign(arguments)
    other: dict[type, Any] = {LedgerOnNode: copy_of(b"other\n"), LedgerCopy: None}
    commands, _ = yielded(ledger.declared, other, **arguments)
    assert "ledger_conflict" in refusal(commands)


def test_the_key_is_placed_once(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """LED-01: absent is placed over standard input, the same is left, another is refused."""
    public = tmp_path / "operator.pub"
    digest = hashlib.sha256(public.read_bytes()).hexdigest()
    new: dict[type, Any] = {LedgerOnNode: NOTHING}
    (command,), _ = yielded(ledger.operator_key, new, public=str(public))
    assert isinstance(command, StringCommand)
    assert command.connector_arguments["_stdin"] == public.read_text()
    same: dict[type, Any] = {LedgerOnNode: NodeLedger(None, digest)}
    commands, host = yielded(ledger.operator_key, same, public=str(public))
    assert (commands, len(host.noops)) == ([], 1)
    other: dict[type, Any] = {LedgerOnNode: NodeLedger(None, "0" * 64)}
    commands, _ = yielded(ledger.operator_key, other, public=str(public))
    assert "operator_key_differs" in refusal(commands)
    commands, _ = yielded(ledger.declared, other, **arguments)
    assert "operator_key_differs" in refusal(commands)


@pytest.mark.parametrize(
    "output",
    [[], ["ledger absent"], ["key absent", "ledger absent"], ["ledger 1 x y", "key absent"]],
)
def test_output_of_another_form_is_an_error(output: list[str]) -> None:
    """The fact is unknown rather than half read."""
    with pytest.raises(PyinfraError):
        parse(output)


def test_no_parameter_is_one_of_pyinfras() -> None:
    """pyinfra swallows operation parameters named like its own."""
    for operation in (ledger.operator_key, ledger.declared):
        assert not set(operation._inner.__annotations__) & set(all_argument_meta)
