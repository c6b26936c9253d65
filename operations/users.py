"""Operations on user accounts."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from facts.users import KnownUsers
from operations.failure import unreadable


@operation()
def system(users: list[str]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare unprivileged system users, each with its own group, no home and no shell.

    + users: account names.

    **Example:**

    .. code:: python

        users.system(name="User of the path keeper", users=["ppn-mesh"])
    """
    known = host.get_fact(KnownUsers, users=users)
    if known is None:
        yield unreadable("the user database")
        return
    missing = [user for user in users if user not in known]
    if not missing:
        host.noop("the users exist")
    for user in missing:
        yield StringCommand(
            "useradd --system --user-group --no-create-home --home-dir /nonexistent",
            "--shell /usr/sbin/nologin --",
            QuoteString(user),
        )
