"""A command line that is wrong is told as JSON where JSON is wanted, by every command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from iso import __main__ as builder
from lab import cli as lab
from ppn.cli.entry import enter, fail
from ppn.cli.exits import Exit, WrongUsage
from ppn.errors import PpnError
from tests.unit.cli.test_help import EVERY, whole_command

# Handed on to the image's builder with all words, wrong ones too; that is judged below.
HANDED_ON = {f"iso {command}" for command in builder.COMMANDS}
WITH_JSON = [
    name
    for name, command in EVERY.items()
    if any("--json" in parameter.opts for parameter in command.params) and name not in HANDED_ON
]
WHOLE = whole_command()


@pytest.fixture
def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run a program with words that are wrong; the error it ends with."""

    def run(program: Callable[[], None], *words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit) as ended:
            program()
        assert ended.value.code == Exit.USAGE
        said = capsys.readouterr()
        assert not said.out
        error: dict[str, Any] = json.loads(said.err)["error"]
        assert error["code"] == "usage" and error["message"] and error["hint"]
        return error

    return run


def ppn() -> None:
    """What `ppn` does, with a command that is put together once."""
    try:
        enter(WHOLE, "ppn")
    except PpnError as error:
        fail(error)


@pytest.mark.parametrize("name", WITH_JSON)
def test_an_unknown_option(name: str, told: Callable[..., dict[str, Any]]) -> None:
    """Wherever the two stand."""
    for words in (("--json", "--nope"), ("--nope", "--json")):
        error = told(ppn, *name.split(), *words)
        assert "--nope" in error["message"] and error["hint"] == f"see ppn {name} --help"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("vm create --json", "Missing argument"),
        ("vm create tiny --json --vcpus two", "Invalid value for '--vcpus'"),
        ("vm show --json VM-A", "is no id of a VM"),
        ("tenant set --json acme", "give one of --memory-mib"),
        ("vm --json", "No such option: --json"),
        ("vm nope --json", "No such command 'nope'"),
        ("nope --json", "No such command 'nope'"),
        ("--json", "No such option: --json"),
        ("--json vm list", "No such option: --json"),
    ],
)
def test_other_wrong_words(words: str, message: str, told: Callable[..., dict[str, Any]]) -> None:
    """Also those that a command finds out itself."""
    assert message in told(ppn, *words.split())["message"]


@pytest.mark.parametrize("vm", ["", "vm-a/move", "../nodes", "vm-a?node=x", "VM-A", "vm-a\n"])
@pytest.mark.parametrize("words", [("vm", "destroy"), ("vm", "move", "--cancel"), ("debug", "vm")])
def test_what_is_no_id(
    words: tuple[str, ...], vm: str, told: Callable[..., dict[str, Any]]
) -> None:
    """CLI-01: nobody is asked, or the question would be another one."""
    error = told(ppn, *words, "--json", "--controller", "http://127.0.0.1:1", "--", vm)
    assert "is no id of a VM" in error["message"]


@pytest.mark.parametrize("command", builder.COMMANDS)
def test_the_builder(command: str, told: Callable[..., dict[str, Any]]) -> None:
    error = told(builder.main, command, "--nope", "--json")
    assert error["hint"] == f"see ppn iso {command} --help"


@pytest.mark.parametrize(
    "words", [["status", "--nope"], ["up", "--iso", "x"], ["status", "--name", "/"]]
)
def test_the_lab(words: list[str], told: Callable[..., dict[str, Any]]) -> None:
    told(lab.main, *words, "--json")


def test_codes_that_are_no_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding is no error, and an order that nobody confirms is no wrong usage."""
    monkeypatch.setattr(sys, "argv", ["program", "--json"])

    def finds(**words: object) -> int:
        return Exit.FINDINGS

    def asks(**words: object) -> None:
        raise typer.Abort

    with pytest.raises(SystemExit) as ended:
        enter(finds)
    assert ended.value.code == Exit.FINDINGS
    with pytest.raises(PpnError) as caught:
        enter(asks)
    assert caught.value.code == "aborted" and not isinstance(caught.value, WrongUsage)
