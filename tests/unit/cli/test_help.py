"""Every command says what it does, shows an example, and takes no secret on its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ppn.cli import app as root
from ppn.cli.exits import MEANING

PPN = Path(sys.executable).with_name("ppn")
# They run until they are told to stop, or change something and have nothing to tell, or speak JSON
# alone.
SILENT = {
    "audit prove",
    "host agent",
    "mesh keep-paths",
    "mesh sync",
    "mesh use-relay",
}
SECRET_WORDS = ("token", "secret", "password", "passphrase")


def whole_command() -> Any:
    """The command with all its groups."""
    if not root.app.registered_groups:
        root.add_groups([])
    return typer.main.get_command(root.app)


def commands(found: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command below one, by its words."""
    for name, command in found.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


EVERY = dict(commands(whole_command()))


def test_there_are_commands_in_every_group() -> None:
    assert {name.split()[0] for name in EVERY} == set(root.GROUPS)


@pytest.mark.parametrize("name", EVERY)
def test_help_is_whole(name: str) -> None:
    """CLI-03: a sentence, an example that begins with the command, a word on every parameter."""
    command = EVERY[name]
    text = command.help or ""
    assert len(text.splitlines()[0]) > 10, "no first sentence"
    assert f"Example: ppn {name}" in text or f"| ppn {name}" in text, "no example"
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} says nothing"


@pytest.mark.parametrize("name", sorted(EVERY.keys() - SILENT))
def test_what_tells_something_tells_it_as_json_too(name: str) -> None:
    options = [option for one in EVERY[name].params for option in one.opts]
    assert "--json" in options


@pytest.mark.parametrize("name", EVERY)
def test_no_secret_stands_on_a_command_line(name: str) -> None:
    """CLI-02: a secret is given as a file; other users read command lines."""
    for parameter in EVERY[name].params:
        for option in parameter.opts:
            if option.startswith("-") and any(word in option for word in SECRET_WORDS):
                assert option.endswith("-file"), option


def test_help_ends_with_the_exit_codes() -> None:
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(
        [PPN, "--help"], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    said = " ".join(done.stdout.split())
    for code, meaning in MEANING.items():
        assert f"{code.value} {meaning}." in said


# Each group in a process of its own, that has imported nothing else.
ALONE = """
import os, sys
from ppn.cli import app
for group in app.GROUPS:
    if os.fork() == 0:
        app.add_groups([group])
        print(group, len(app.app.registered_groups), "httpx" in sys.modules, flush=True)
        os._exit(0)
    os.wait()
"""


def test_a_group_is_there_alone_when_it_is_named() -> None:
    """Importing all groups costs a node as long as answering does."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [f"{group} 1 False" for group in root.GROUPS]
