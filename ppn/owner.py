"""Acting as the owner of a service's files: what root made there would stop the service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppn.errors import PpnError


class NotTheOwner(PpnError):
    """Files of a service that this user may not write."""

    code = "not_the_owner"


@contextmanager
def acting_as_owner(folder: Path, service: str) -> Iterator[None]:
    """Write files as the one who owns a folder.

    Args:
        folder: the service's.
        service: whose files they are, for people.

    Raises:
        NotTheOwner: it is missing, or neither root nor its owner asks.
    """
    try:
        owner = folder.stat()
    except OSError as error:
        raise NotTheOwner(
            f"cannot look at {folder}: {error.strerror}",
            hint=f"run this on the {service}'s node, as root",
        ) from error
    user, group, groups = os.geteuid(), os.getegid(), os.getgroups()
    if owner.st_uid == user:
        yield
        return
    if user != 0:
        raise NotTheOwner(f"{folder} belongs to another user", hint="run this as root")
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)
