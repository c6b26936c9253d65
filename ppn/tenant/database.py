"""The database of the tenant store: SQLite in a file, or PostgreSQL, chosen by one URL."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection

from ppn.errors import PpnError

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
# The steps in there, the last one at the end: Alembic is loaded for an upgrade alone.
REVISIONS = ("a001",)
# How long a transaction waits for a connection, and for another transaction's lock.
LOCK_SECONDS = 15
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
CONNECTIONS = 8
# Any number, the same for every program that upgrades a store.
UPGRADE_LOCK = 0x70706E
READ_ONLY = "ppn_read_only"


class StoreUnavailable(PpnError):
    """The tenant store cannot be used, now or at all; the code says why."""

    code = "store_unavailable"


def parse_url(url: str) -> URL:
    """A store's URL, taken apart.

    Args:
        url: `sqlite:////absolute/path`, or `postgresql://...`, without a password in it: it would
            stand in settings and process lists.

    Raises:
        StoreUnavailable: `store_url_invalid`.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise _bad_url("the store's URL cannot be read") from error
    if parsed.password is not None or "password" in parsed.query:
        raise _bad_url("the store's URL has a password in it")
    if parsed.drivername == "sqlite":
        if not (parsed.database or "").startswith("/"):
            raise _bad_url(f"{url}: SQLite needs an absolute path")
        return parsed
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise _bad_url(f"{parsed.drivername} is neither sqlite nor postgresql")


def open_engine(url: URL) -> Engine:
    """A pool of connections to a store; nothing is connected yet."""
    shared: dict[str, Any] = {
        "pool_size": CONNECTIONS,
        "max_overflow": 0,
        "pool_timeout": LOCK_SECONDS,
    }
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS}, **shared)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    limits = {
        "lock_timeout": LOCK_SECONDS,
        "statement_timeout": STATEMENT_SECONDS,
        # A proxy that was stopped in the midst must not keep its tenant's row for ever.
        "idle_in_transaction_session_timeout": STATEMENT_SECONDS,
    }
    arguments = {
        "connect_timeout": CONNECT_SECONDS,
        "tcp_user_timeout": STATEMENT_SECONDS * 1000,
        "application_name": "ppn-tenant",
        "options": " ".join(f"-c {name}={seconds}s" for name, seconds in limits.items()),
    }
    # Each statement sees what was committed before it: the sum, once the row is locked.
    return create_engine(
        url,
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        **shared,
    )


@contextmanager
def transaction(engine: Engine, *, read_only: bool = False) -> Iterator[Connection]:
    """One transaction, committed at the end and rolled back on any exception.

    Args:
        engine: of the store.
        read_only: it changes nothing, and waits for no writer.

    Raises:
        StoreUnavailable: the database cannot be reached, is full, or was busy for too long.
    """
    try:
        with engine.connect() as connection:
            connection.execution_options(**{READ_ONLY: read_only})
            with connection.begin():
                yield connection
    except (DBAPIError, NoConnection) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise StoreUnavailable(
            f"the tenant store cannot be used: {first}", hint="is its database up, and has it room?"
        ) from error


def create_file(url: URL) -> None:
    """Make the file of an SQLite store, for its owner alone, unless it is there.

    Raises:
        StoreUnavailable: its folder is missing or cannot be written.
    """
    if url.get_backend_name() != "sqlite":
        return
    try:
        os.close(os.open(str(url.database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(
            f"cannot make {url.database}: {error.strerror}",
            hint="make its folder, owned by who runs the tenant proxy",
        ) from error


def check_file(url: URL) -> None:
    """Refuse an SQLite store that is not there: opening it would make an empty one.

    Raises:
        StoreUnavailable: `store_missing`.
    """
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise _missing(f"there is no tenant store at {url.database}")


def upgrade(engine: Engine) -> None:
    """Bring a store to what this program knows, one program at a time; all of it or nothing.

    Raises:
        StoreUnavailable: `store_newer`, or it cannot be used.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic reads % as the start of a name.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": UPGRADE_LOCK})
        _revision(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_version(engine: Engine) -> None:
    """Refuse a store of another version than this program's.

    Raises:
        StoreUnavailable: `store_newer`, `store_missing`, `store_outdated`, or it cannot be used.
    """
    with transaction(engine, read_only=True) as connection:
        revision = _revision(connection)
    if revision is None:
        raise _missing("there is no tenant store in this database")
    if revision != REVISIONS[-1]:
        raise StoreUnavailable(
            "the tenant store was made by an older ppn",
            code="store_outdated",
            hint="run `ppn tenant init`, or start the tenant proxy",
        )


def _revision(connection: Connection) -> str | None:
    """The last step that a store has taken; None for no store.

    Raises:
        StoreUnavailable: `store_newer`.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision not in REVISIONS:
        raise StoreUnavailable(
            f"the tenant store was made by a newer ppn: it is at {revision}",
            code="store_newer",
            hint="install that version of ppn, or a later one",
        )
    return revision


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # Transactions begin where `_begin_sqlite` says, not where Python's module guesses.
    connection.isolation_level = None
    _keep_ahead(connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _keep_ahead(connection: sqlite3.Connection) -> None:
    """Have the log written ahead, so that readers wait for no writer.

    On a new file, SQLite itself waits for nobody here: it refuses while another program does this.
    """
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    # A transaction that reads first and locks later could not be carried out beside another.
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _bad_url(message: str) -> StoreUnavailable:
    return StoreUnavailable(
        message,
        code="store_url_invalid",
        hint="sqlite:////var/lib/ppn-tenant/tenants.db, or "
        "postgresql://USER@HOST/DATABASE?passfile=FILE",
    )


def _missing(message: str) -> StoreUnavailable:
    return StoreUnavailable(message, code="store_missing", hint="make it with `ppn tenant init`")
