"""Facts about user accounts."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


class KnownUsers(FactBase[frozenset[str] | None]):
    """Those of the named users that a node knows.

    Args:
        users: account names.

    Example:
        `host.get_fact(KnownUsers, users=["root"])`
    """

    @override
    @staticmethod
    def default() -> frozenset[str] | None:
        return None

    @override
    def command(self, users: list[str]) -> StringCommand:
        # getent ends with 2 when a name is unknown, which is an answer.
        return StringCommand(
            "echo start; getent passwd --",
            *(QuoteString(user) for user in users),
            "|| test $? -eq 2",
        )

    @override
    def process(self, output: list[str]) -> frozenset[str] | None:
        return frozenset(line.split(":")[0] for line in output[1:])
