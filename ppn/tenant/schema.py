"""The tables of the tenant store, the same on SQLite and PostgreSQL.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """A time in UTC, as whole microseconds since 1970: SQLite has no type of its own for it."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * MICROSECOND


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("memory_mib", BigInteger, nullable=False),
    Column("vcpus", BigInteger, nullable=False),
    Column("disk_gib", BigInteger, nullable=False),
    Column("vms", BigInteger, nullable=False),
    Column("created", Moment, nullable=False),
    CheckConstraint("memory_mib > 0 AND vcpus > 0 AND disk_gib > 0 AND vms > 0", "ceiling"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.name"), nullable=True),
    Column("digest", String(64), nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=True),
    Column("revoked", Moment, nullable=True),
    Index("ix_tokens_tenant", "tenant"),
)

allocations = Table(
    "allocations",
    metadata,
    Column("vm", String(63), primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.name"), nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("vcpus", BigInteger, nullable=False),
    Column("disk_gib", BigInteger, nullable=False),
    Column("pending_memory_mib", BigInteger, nullable=True),
    Column("pending_vcpus", BigInteger, nullable=True),
    Column("pending_disk_gib", BigInteger, nullable=True),
    Column("state", String(16), nullable=False),
    Column("since", Moment, nullable=False),
    Column("until", Moment, nullable=True),
    Column("holders", BigInteger, nullable=False),
    Column("operation", String(16), nullable=False),
    CheckConstraint("memory_mib > 0 AND vcpus > 0 AND disk_gib > 0", "amount"),
    CheckConstraint("state IN ('reserved', 'settled', 'removing')", "state"),
    CheckConstraint("holders >= 0", "holders"),
    Index("ix_allocations_tenant", "tenant"),
    Index("ix_allocations_until", "until"),
)
