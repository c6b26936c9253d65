"""The tenant store and its audit log, opened on a tenant proxy's own node."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ppn.audit.checkpoint import origin_of
from ppn.audit.log import Log
from ppn.owner import acting_as_owner
from ppn.tenant.provisioning import Provisioning
from ppn.tenant.settings import TenantSettings
from ppn.tenant.store import Store


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
    with (
        acting_as_owner(settings.audit.parent, "tenant proxy"),
        Store.open(settings.store, upgrade=upgrade) as one,
    ):
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
