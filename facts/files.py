"""Facts about files: many in one round trip."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.lines import STATUS

SCRIPT = f"""set -eu
{STATUS}
for path in "$@"; do status "" "$path"; done"""


@dataclass(frozen=True)
class FileStatus:
    """What a file is now: permission bits as octal digits, owner, group, SHA-256 in hex."""

    mode: str
    owner: str
    group: str
    sha256: str | None


class Statuses(FactBase[dict[str, FileStatus | None] | None]):
    """Mode, owner and digest of files; a path maps to `None` when nothing is there.

    Args:
        paths: absolute paths.

    Returns:
        One entry for each path, or `None` when they could not all be read.

    Example:
        `host.get_fact(Statuses, paths=["/etc/hosts"])`
    """

    @override
    @staticmethod
    def default() -> dict[str, FileStatus | None] | None:
        return None

    @override
    def command(self, paths: list[str]) -> StringCommand:
        return StringCommand(
            "sh", "-c", QuoteString(SCRIPT), "ppn-files", *(QuoteString(p) for p in paths)
        )

    @override
    def process(self, output: list[str]) -> dict[str, FileStatus | None] | None:
        return dict(parse_status(line) for line in output)


def parse_status(line: str) -> tuple[str, FileStatus | None]:
    """One line of the script's output as a path and its status.

    Raises:
        FactProcessError: the line is not of the expected form.
    """
    word, _, rest = line.partition(" ")
    if word == "absent":
        return rest, None
    fields = rest.split(" ", 5)
    if word != "present" or len(fields) != 6:
        raise FactProcessError(f"unexpected line from the file script: {line!r}")
    mode, owner, group, kind, digest, path = fields
    return path, FileStatus(mode.zfill(4), owner, group, digest if kind == "file" else None)


class Text(FactBase[str | None]):
    """The content of a small text file, or an empty text when it is absent.

    Args:
        path: absolute path.

    Example:
        `host.get_fact(Text, path="/etc/hostname")`
    """

    @override
    @staticmethod
    def default() -> str | None:
        return None

    @override
    def command(self, path: str) -> StringCommand:
        quoted = QuoteString(path)
        return StringCommand(
            "echo", "start", "&&", "{", "! test -e", quoted, "|| cat", quoted, ";}"
        )

    @override
    def process(self, output: list[str]) -> str | None:
        return "".join(f"{line}\n" for line in output[1:])
