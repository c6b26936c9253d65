"""Facts about a node's operating system and the ppn software on it."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override


@dataclass(frozen=True)
class Platform:
    """What a node runs, and whence we speak to it.

    Args:
        distribution, release: such as `debian` and `13`.
        architecture: of the CPU.
        kernel: its release.
        caller: the address this SSH connection comes from, or `none` when it cannot be told.
    """

    distribution: str
    release: str
    architecture: str
    kernel: str
    caller: str


class NodePlatform(FactBase[Platform | None]):
    """The operating system of a node.

    Example:
        `host.get_fact(NodePlatform)`
    """

    @override
    @staticmethod
    def default() -> Platform | None:
        return None

    @override
    def command(self) -> str:
        return (
            '. /etc/os-release && caller="${SSH_CONNECTION:-none}" &&'
            ' echo "$ID ${VERSION_ID:-none} $(uname -m) $(uname -r) ${caller%% *}"'
        )

    @override
    def process(self, output: list[str]) -> Platform | None:
        fields = output[0].split()
        if len(fields) != 5:
            raise FactProcessError(f"unexpected description of the platform: {output[0]!r}")
        return Platform(*fields)


class InstalledSoftware(FactBase[str | None]):
    """The digest of the wheelhouse a node's software was installed from; empty when none.

    Example:
        `host.get_fact(InstalledSoftware)`
    """

    @override
    @staticmethod
    def default() -> str | None:
        return None

    @override
    def command(self) -> str:
        return "echo start; ! test -e /opt/ppn/venv/INSTALLED || cat /opt/ppn/venv/INSTALLED"

    @override
    def process(self, output: list[str]) -> str | None:
        return "".join(output[1:]).strip()
