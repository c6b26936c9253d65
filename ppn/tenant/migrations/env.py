"""Run by Alembic: the steps of an upgrade, in the transaction that the caller began."""

from __future__ import annotations

from alembic import context

from ppn.tenant.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite too takes back tables that were made in a transaction that fails.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
