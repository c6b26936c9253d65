"""The tenant store and its audit log, opened on a tenant proxy's own node."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ppn.audit.checkpoint import origin_of
from ppn.audit.log import Log
from ppn.errors import PpnError
from ppn.tenant.provisioning import Provisioning
from ppn.tenant.settings import TenantSettings
from ppn.tenant.store import Store


class NotTheOwner(PpnError):
    """Files of the tenant proxy that this user may not write."""

    code = "not_the_owner"


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@contextmanager
def opened_store(settings: TenantSettings, *, upgrade: bool = False) -> Iterator[Store]:
    """The store of a proxy's settings, for as long as the block lasts.

    Args:
        settings: the proxy's.
        upgrade: make it, or bring it to this program's version, first.

    Raises:
        StoreUnavailable: see `Store.open`.
        NotTheOwner: neither root nor the proxy's own user asks.
    """
    with acting_as_owner(settings.audit.parent), Store.open(settings.store, upgrade=upgrade) as one:
        yield one


@contextmanager
def opened_provisioning(settings: TenantSettings) -> Iterator[Provisioning]:
    """What changes customers and tokens, for as long as the block lasts.

    Raises:
        StoreUnavailable: see `Store.open`.
        AuditUnavailable: see `Log.open`.
        NotTheOwner: neither root nor the proxy's own user asks.
    """
    origin = origin_of(settings.name)
    with (
        opened_store(settings) as store,
        Log.open(settings.audit, origin, settings.audit_key) as log,
    ):
        yield Provisioning(store, log, secrets.token_hex(16), utc_now)


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """Write files as the one who owns a folder: what root made there would stop the proxy.

    Args:
        folder: the proxy's.

    Raises:
        NotTheOwner: it is missing, or neither root nor its owner asks.
    """
    try:
        owner = folder.stat()
    except OSError as error:
        raise NotTheOwner(
            f"cannot look at {folder}: {error.strerror}",
            hint="run this on the tenant proxy's node, as root",
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
