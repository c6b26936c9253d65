"""Facts about Debian packages."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


class Installed(FactBase[dict[str, str] | None]):
    """Versions of those of the named Debian packages that are fully installed.

    Args:
        packages: names as apt knows them.

    Example:
        `host.get_fact(Installed, packages=["nftables"])`
    """

    @override
    @staticmethod
    def default() -> dict[str, str] | None:
        return None

    @override
    def command(self, packages: list[str]) -> StringCommand:
        # dpkg-query ends with 1 when a name is unknown to it, which is an answer; 2 is an error.
        return StringCommand(
            "echo start;",
            "dpkg-query -W -f='${db:Status-Status} ${Package} ${Version}\\n' --",
            *(QuoteString(package) for package in packages),
            "2>/dev/null || test $? -eq 1",
        )

    @override
    def process(self, output: list[str]) -> dict[str, str] | None:
        rows = (line.split(" ") for line in output[1:])
        return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}
