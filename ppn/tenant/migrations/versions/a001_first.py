"""The first tables: tenants, tokens, allocations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "a001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _make_tenants()
    _make_tokens()
    _make_allocations()


def _make_tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("memory_mib", sa.BigInteger, nullable=False),
        sa.Column("vcpus", sa.BigInteger, nullable=False),
        sa.Column("disk_gib", sa.BigInteger, nullable=False),
        sa.Column("vms", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
        sa.CheckConstraint(
            "memory_mib > 0 AND vcpus > 0 AND disk_gib > 0 AND vms > 0",
            name=op.f("ck_tenants_ceiling"),
        ),
    )


def _make_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=True),
        sa.Column("revoked", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_tokens_tenant"),
    )
    op.create_index("ix_tokens_tenant", "tokens", ["tenant"])


def _make_allocations() -> None:
    op.create_table(
        "allocations",
        sa.Column("vm", sa.String(63), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("memory_mib", sa.BigInteger, nullable=False),
        sa.Column("vcpus", sa.BigInteger, nullable=False),
        sa.Column("disk_gib", sa.BigInteger, nullable=False),
        sa.Column("pending_memory_mib", sa.BigInteger, nullable=True),
        sa.Column("pending_vcpus", sa.BigInteger, nullable=True),
        sa.Column("pending_disk_gib", sa.BigInteger, nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=True),
        sa.Column("holders", sa.BigInteger, nullable=False),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("vm", name="pk_allocations"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_allocations_tenant"),
        sa.CheckConstraint(
            "memory_mib > 0 AND vcpus > 0 AND disk_gib > 0", name=op.f("ck_allocations_amount")
        ),
        sa.CheckConstraint(
            "state IN ('reserved', 'settled', 'removing')", name=op.f("ck_allocations_state")
        ),
        sa.CheckConstraint("holders >= 0", name=op.f("ck_allocations_holders")),
    )
    op.create_index("ix_allocations_tenant", "allocations", ["tenant"])
    op.create_index("ix_allocations_until", "allocations", ["until"])
