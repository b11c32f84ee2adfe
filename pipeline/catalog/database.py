"""The connection to the catalog's database: transactions, migrations, and database errors turned into ours."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from pipeline.catalog.migrations import REVISIONS
from pipeline.errors import CatalogTooNew, DiskFull, LibraryBusy, LibraryError, NotALibrary

__all__ = ["Database"]

_BUSY_SECONDS = 60
_NEARLY_FULL_BYTES = 1 << 20
_MIGRATION_LOCK = 0x4C6F6E67  # any constant: the key of PostgreSQL's advisory lock


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The sqlite3 module starts no transaction for reads and a deferred one for writes; ours are explicit.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode = WAL")  # readers never wait for the writer, nor it for them
    cursor.execute(
        "PRAGMA synchronous = NORMAL"
    )  # safe against a crash with WAL; a power cut may cost the last commits
    cursor.execute("PRAGMA cache_size = -32000")
    cursor.execute("PRAGMA journal_size_limit = 67108864")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a transaction that starts by reading and then writes fails when another wrote in
    # between.
    writes = connection.get_execution_options().get("longreel_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """A pool of connections to one catalog. Any number of threads may use it; a forked child must open its own.

    Args:
        target: path of a SQLite file, or a SQLAlchemy URL (``postgresql+psycopg://...``).
        create: make the file and its tables when there are none.

    Raises:
        NotALibrary: no catalog there (and ``create`` is false), or the file is no database or a damaged one.
        CatalogTooNew: a newer Longreel made it.
        DiskFull, LibraryBusy, LibraryError: as any other use of it.
    """

    def __init__(self, target: Path | str, *, create: bool = True) -> None:
        if isinstance(target, str) and "://" in target:
            url = make_url(target)
        else:
            url = URL.create("sqlite", database=str(Path(target).absolute()))
        self.path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
        self.label = str(self.path) if self.path else url.render_as_string(hide_password=True)
        if self.path is not None and not create and not self.path.is_file():
            raise NotALibrary(f"{self.path}: no catalog there")
        self._engine: Engine = create_engine(url)
        if self.path is not None:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(longreel_writes=True)
        try:
            self._bring_up_to_date(create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the catalog from beginning to end. Nothing of it is kept."""
        with self._typed_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is kept whole when the block ends, and not at all when it raises."""
        with self._typed_errors(), self._writer.begin() as connection:
            yield connection

    # -- schema ----------------------------------------------------------------------------------------------------

    def _bring_up_to_date(self, create: bool) -> None:
        with self.read() as connection:
            found = self._revision(connection)
        if found == REVISIONS[-1]:
            return
        if found is None and not create:
            raise NotALibrary(f"{self.label}: the catalog has no tables")
        # Alembic takes a quarter of a second to import: only when there is something to do.
        from alembic import command
        from alembic.config import Config

        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            if self._revision(connection) == REVISIONS[-1]:  # another process was faster
                return
            config = Config()
            # Configuration values go through %-interpolation.
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, REVISIONS[-1])

    def _revision(self, connection: Connection) -> str | None:
        tables = set(inspect(connection).get_table_names())
        if "alembic_version" not in tables:
            if tables:
                raise NotALibrary(
                    f"{self.label}: a database, but not a Longreel catalog (tables: {sorted(tables)[:5]})"
                )
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if found is not None and found not in REVISIONS:
            raise CatalogTooNew(
                f"{self.label}: the catalog has schema {found}, this Longreel knows up to "
                f"{REVISIONS[-1]}; use a newer one"
            )
        return found

    # -- errors ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error) from error

    def _explain(self, error: DBAPIError) -> LibraryError:
        message = str(error.orig)
        if "disk is full" in message or "No space left" in message:
            return DiskFull(f"{self.label}: no space left on the disk of the catalog")
        if "disk I/O error" in message and self.path is not None:
            # SQLite reports a full disk so when it happens beside the main file.
            if shutil.disk_usage(self.path.parent).free < _NEARLY_FULL_BYTES:
                return DiskFull(f"{self.label}: no space left on the disk of the catalog")
            return LibraryError(f"{self.label}: the disk of the catalog failed ({message})")
        if "no such module: fts5" in message:
            return LibraryError(f"{self.label}: this Python's SQLite was built without full-text search (FTS5)")
        if "is locked" in message:
            return LibraryBusy(f"{self.label}: another process has held the catalog for {_BUSY_SECONDS} s")
        if "not a database" in message or "malformed" in message:
            return NotALibrary(f"{self.label}: the catalog is damaged ({message})")
        if "unable to open" in message or "readonly" in message:
            return LibraryError(f"{self.label}: the catalog may not be opened for writing ({message})")
        return LibraryError(f"{self.label}: {type(error.orig).__name__}: {message}")
