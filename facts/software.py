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


@dataclass(frozen=True)
class Software:
    """Which software of ppn a node has.

    Args:
        release: the digest of the build in use; empty when none is.
        dependencies: the digests of the layers of packages that are whole.
        free_mib: room left where they are kept, in MiB.
    """

    release: str
    dependencies: frozenset[str]
    free_mib: int


class InstalledSoftware(FactBase[Software | None]):
    """The build of ppn a node runs, and the layers of packages it has.

    Example:
        `host.get_fact(InstalledSoftware)`
    """

    @override
    @staticmethod
    def default() -> Software | None:
        return None

    @override
    def command(self) -> str:
        return (
            "folder=/opt/ppn; test -d $folder || folder=/opt; stat -f -c '%a %S' $folder || exit 1;"
            " for mark in /opt/ppn/venv/INSTALLED /opt/ppn/dependencies-*/INSTALLED; do"
            ' test -e "$mark" || continue; digest=$(cat "$mark") || exit 1;'
            ' echo "$mark $digest"; done'
        )

    @override
    def process(self, output: list[str]) -> Software | None:
        try:
            blocks, size = (int(word) for word in output[0].split())
        except ValueError as error:
            raise FactProcessError(f"unexpected free space: {output[0]!r}") from error
        # A mark that a power cut left empty marks nothing.
        marks = {line.partition(" ")[0]: line.partition(" ")[2] for line in output[1:]}
        release = marks.pop("/opt/ppn/venv/INSTALLED", "")
        whole = {digest for mark, digest in marks.items() if f"/dependencies-{digest}/" in mark}
        return Software(release, frozenset(whole), blocks * size // 2**20)
