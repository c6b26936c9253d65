"""What an operation would send, given what its facts say; nothing is connected to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyinfra.api import FunctionCommand, StringCommand
from pyinfra.context import ctx_host, ctx_state


class KnownHost:
    """Stands where pyinfra's host would: answers facts from a table and keeps what is logged.

    Args:
        facts: fact class to its value, or to a function of the fact's arguments.
        executing: whether the run is past its preparation.
    """

    name = "node"

    def __init__(self, facts: Mapping[type, Any], executing: bool = True) -> None:
        self.facts = facts
        self.log_lines: list[str] = []
        self.noops: list[str] = []
        self.state = KnownState(executing)
        self.data = KnownData()

    def get_fact(self, fact: type, **arguments: Any) -> Any:
        value = self.facts[fact]
        return value(**arguments) if callable(value) else value

    def noop(self, text: str) -> None:
        self.noops.append(text)

    def log(self, text: str) -> None:
        self.log_lines.append(text)

    def log_styled(self, text: str, **style: Any) -> None:
        self.log_lines.append(text)


class KnownData(dict[str, Any]):
    """Stands where pyinfra's host data would: values set as attributes are read as keys."""

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class KnownState:
    """Stands where pyinfra's state and its inventory would."""

    class config:
        DIFF = False

    def __init__(self, executing: bool) -> None:
        self.is_executing = executing
        self.inventory = self
        self.ops: dict[str, dict[str, Any]] = {KnownHost.name: {}}

    def get_host(self, name: str) -> str:
        return name


def yielded(
    operation: Callable[..., Any], facts: Mapping[type, Any], **arguments: Any
) -> tuple[list[Any], KnownHost]:
    """The commands of an operation and the host it ran against.

    Args:
        operation: an operation.
        facts: what each fact it reads would return.
        arguments: the operation's own.
    """
    host = KnownHost(facts)
    with ctx_state.use(host.state), ctx_host.use(host):
        inner: Callable[..., Any] = operation._inner  # type: ignore[attr-defined]  # pyinfra adds it
        return list(inner(**arguments)), host


def texts(commands: list[Any]) -> list[str]:
    """Shell commands as text; uploads and functions by the name of their kind."""
    return [
        str(command) if isinstance(command, StringCommand) else type(command).__name__
        for command in commands
    ]


def refusal(commands: list[Any]) -> str:
    """The message of the one command that fails its host, and of no other kind of command."""
    (command,) = commands
    if not isinstance(command, FunctionCommand):
        raise TypeError(f"not a refusal: {command!r}")
    host = KnownHost({})
    if command.function(host.state, host):
        raise ValueError("the refusal succeeded")
    return host.log_lines[0]
