"""What the tenant proxies remember: tenants, tokens, and what every VM takes of a ceiling.

Every call is one transaction and waits for the database: services make it in a thread. A tenant's
transactions follow one another, whichever process they come from. Two tenants do not wait for each
other on PostgreSQL; on SQLite they wait for no longer than a transaction takes.
"""

from __future__ import annotations

from ppn.tenant import database
from ppn.tenant.allocations import Allocations
from ppn.tenant.customers import Customers


class Store(Customers, Allocations):
    """The tenant store of a pool, shared by any number of processes and threads."""

    @classmethod
    def open(cls, url: str, *, upgrade: bool = False) -> Store:
        """Open a store.

        Args:
            url: of its database.
            upgrade: make it, or bring it to this program's version, first.

        Raises:
            StoreUnavailable: not there, of another version, or its database cannot be used.
        """
        parsed = database.parse_url(url)
        if upgrade:
            database.create_file(parsed)
        database.check_file(parsed)
        store = cls(database.open_engine(parsed))
        try:
            if upgrade:
                database.upgrade(store._engine)
            database.check_version(store._engine)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Give the database's connections back."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
