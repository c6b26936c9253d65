"""How a store is made, brought up to date, and refused when it cannot be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from ppn.tenant import database
from ppn.tenant.database import StoreUnavailable
from ppn.tenant.model import DEFAULT_CEILING
from ppn.tenant.schema import metadata
from ppn.tenant.store import Store
from tests.unit.tenant.samples import NOW

NEXT = """
from alembic import op

revision = "z999"
down_revision = "a001"


def upgrade():
    op.execute("CREATE TABLE more (x INTEGER)")
"""


def unavailable(code: str) -> pytest.RaisesExc[StoreUnavailable]:
    """Expect that a store cannot be used, with a code."""
    return pytest.RaisesExc(StoreUnavailable, check=lambda found: found.code == code)


def execute(url: str, statement: str) -> None:
    """Do something to a database."""
    engine = database.open_engine(database.parse_url(url))
    with database.transaction(engine) as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_the_migrations_make_the_tables_of_the_schema(store: Store, url: str) -> None:
    engine = database.open_engine(database.parse_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        for table in metadata.sorted_tables:
            made = {
                found["name"] for found in inspect(connection).get_check_constraints(table.name)
            }
            wanted = {str(one.name) for one in table.constraints if hasattr(one, "sqltext")}
            assert made == wanted, table.name
    engine.dispose()


def test_the_program_knows_every_migration() -> None:
    steps = ScriptDirectory(str(database.MIGRATIONS)).walk_revisions()
    assert tuple(step.revision for step in steps)[::-1] == database.REVISIONS


def test_many_programs_may_bring_a_store_up_to_date_at_once(url: str) -> None:
    """The first makes the tables, the others find them."""
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(lambda _: Store.open(url, upgrade=True), range(6)))
    stores[0].create_tenant("acme", DEFAULT_CEILING, now=NOW)
    assert all(len(store.tenants()) == 1 for store in stores)
    for store in stores:
        store.close()


def test_a_program_that_is_making_a_store_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself refuses at once where a new file's mode is changed by two."""
    path = tmp_path / "tenants.db"
    with (
        ThreadPoolExecutor(1) as thread,
        closing(sqlite3.connect(path, isolation_level=None)) as first,
    ):
        first.execute("BEGIN IMMEDIATE")
        second = thread.submit(Store.open, f"sqlite:///{path}", upgrade=True)
        with pytest.raises(TimeoutError):
            second.result(0.5)
        first.execute("COMMIT")
        second.result(60).close()


@pytest.mark.fault(
    "a tenant store of a newer ppn under an older one",
    "refused at the start, nothing is changed",
)
def test_a_newer_store_is_refused(store: Store, url: str) -> None:
    execute(url, "UPDATE alembic_version SET version_num = 'z999'")
    for upgrade in (True, False):
        with unavailable("store_newer") as caught:
            Store.open(url, upgrade=upgrade)
        assert "z999" in caught.value.message


def test_an_older_store_is_brought_up_to_date_only_when_asked(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it stays."""
    store.create_tenant("acme", DEFAULT_CEILING, now=NOW)
    later = tmp_path / "migrations"
    shutil.copytree(database.MIGRATIONS, later, ignore=shutil.ignore_patterns("__pycache__"))
    (later / "versions" / "z999_next.py").write_text(NEXT)
    monkeypatch.setattr(database, "MIGRATIONS", later)
    monkeypatch.setattr(database, "REVISIONS", (*database.REVISIONS, "z999"))
    with unavailable("store_outdated"):
        Store.open(url)
    with Store.open(url, upgrade=True) as opened:
        assert [tenant.name for tenant in opened.tenants()] == ["acme"]
    monkeypatch.undo()
    with unavailable("store_newer"):
        Store.open(url)


def test_there_is_no_store_before_it_is_made(url: str) -> None:
    with unavailable("store_missing"):
        Store.open(url)
    Store.open(url, upgrade=True).close()
    Store.open(url).close()


def test_an_upgrade_that_fails_leaves_nothing_behind(url: str, tmp_path: Path) -> None:
    """All tables or none: a table of the same name stands in the way of the last one."""
    if url.startswith("sqlite"):
        (tmp_path / "tenants.db").touch()
    execute(url, "CREATE TABLE allocations (x INTEGER)")
    with unavailable("store_unavailable"):
        Store.open(url, upgrade=True)
    execute(url, "DROP TABLE allocations")
    Store.open(url, upgrade=True).close()


def test_the_file_of_a_store_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Store.open(f"sqlite:///{tmp_path}/tenants.db", upgrade=True).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tenants.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///tenants.db",
        "sqlite://",
        "mysql://localhost/x",
        "postgresql+psycopg2://localhost/x",
        "postgresql://ppn:secret@10.8.0.1/ppn",
        "postgresql://10.8.0.1/ppn?password=secret",
        "no url",
        "",
    ],
)
def test_other_urls_are_refused_without_their_secrets(url: str) -> None:
    """No password stands in settings, process lists or messages."""
    with unavailable("store_url_invalid") as caught:
        Store.open(url, upgrade=True)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_and_a_server_that_is_not_up(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/none/tenants.db", f"postgresql://x@/x?host={tmp_path}"):
        with unavailable("store_unavailable"):
            Store.open(url, upgrade=True)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tenants.db"
    path.write_bytes(b"not a database, but something else of that name" * 100)
    before = path.read_bytes()
    with unavailable("store_unavailable"):
        Store.open(f"sqlite:///{path}", upgrade=True)
    assert path.read_bytes() == before
