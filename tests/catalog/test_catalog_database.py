"""The database itself: migrations, other people's files, full disks, several processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import pipeline.catalog.migrations as migrations
from pipeline.catalog import Catalog
from pipeline.catalog.database import Database
from pipeline.catalog.models import metadata
from pipeline.errors import CatalogTooNew, DiskFull, LibraryBusy, LibraryError, NotALibrary
from tests.catalog.content import add, part_result, plan


def test_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    Catalog(path).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        # SQLite keeps the full-text index of captions in tables of its own.
        ours = {"include_name": lambda name, kind, _: kind != "table" or not name.startswith("captions_words")}
        context = MigrationContext.configure(connection, opts={"compare_type": True, **ours})
        assert compare_metadata(context, metadata) == []


def test_revisions_listed_are_those_shipped() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    shipped = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(shipped)) == migrations.REVISIONS


def test_opening_again_needs_no_alembic(tmp_path: Path) -> None:
    Catalog(tmp_path / "c.sqlite3").close()
    code = (
        "import sys; from pipeline.catalog import Catalog; Catalog(sys.argv[1]).close(); "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.sqlite3")], check=True)


def test_importing_the_package_is_light() -> None:
    code = "import sys, pipeline.catalog; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_settings_of_sqlite(catalog: Catalog) -> None:
    with catalog._read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1, "busy_timeout": 60_000}


def test_a_catalog_of_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    Catalog(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CatalogTooNew, match="9999"):
        Catalog(path)


def test_what_is_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(NotALibrary, match="no catalog there"):
        Catalog(tmp_path / "absent.sqlite3", create=False)
    (tmp_path / "text").write_text("this is a letter, not a database\n" * 100)
    with pytest.raises(NotALibrary, match="damaged"):
        Catalog(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(NotALibrary, match="recipes"):
        Catalog(tmp_path / "other")
    with pytest.raises(LibraryError, match="opened"):
        Catalog(tmp_path / "no such folder" / "c.sqlite3")
    (tmp_path / "empty").touch()
    with pytest.raises(NotALibrary, match="no tables"):
        Catalog(tmp_path / "empty", create=False)


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    with Catalog(path) as catalog:
        for i in range(20):
            add(catalog, f"/{i}.mp4", vectors=20)
    raw = bytearray(path.read_bytes())
    raw[8192:] = b"\xff" * (len(raw) - 8192)
    path.write_bytes(raw)
    with pytest.raises(NotALibrary, match="damaged"), Catalog(path) as catalog:
        list(catalog.dump())


def test_a_full_disk_is_named_and_nothing_is_half_done(tmp_path: Path) -> None:
    with Catalog(tmp_path / "c.sqlite3") as catalog:
        add(catalog)
        _, (part, _) = plan(catalog, "/b.mp4")
        before = list(catalog.dump())
        with catalog._write() as connection:  # as if the disk ended here
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DiskFull, match="no space left"):
            catalog.commit_part(part.id, part_result(part.span, segments=20, vectors=50))
        assert list(catalog.dump()) == before
        with catalog._write() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        assert catalog.commit_part(part.id, part_result(part.span, segments=20, vectors=50))


def test_a_writer_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.catalog.database._BUSY_SECONDS", 0.1)
    path = tmp_path / "c.sqlite3"
    with Catalog(path) as catalog, Catalog(path) as other:
        with catalog._write(), pytest.raises(LibraryBusy, match="another process"):
            plan(other)
        assert other.videos() == []
        with catalog._write() as connection:
            connection.exec_driver_sql("UPDATE counters SET value = 5")
            assert other.current_seq() == 0  # readers see the last committed state and do not wait
        assert other.current_seq() == 5


def test_a_read_sees_one_state(tmp_path: Path) -> None:
    with Catalog(tmp_path / "c.sqlite3") as catalog:
        add(catalog, "/a.mp4")
        content = catalog.dump()
        first = next(content)
        add(catalog, "/b.mp4")
        assert {values["name"] for table, values in [first, *content] if table == "videos"} == {"a.mp4"}


OPENER = "import sys; from pipeline.catalog import Catalog; Catalog(sys.argv[1]).close()"


def test_many_processes_may_make_it_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sqlite3")
    started = [subprocess.Popen([sys.executable, "-c", OPENER, path]) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    with Catalog(path) as catalog:
        assert catalog.current_seq() == 0


WRITER = """
import sys
from pipeline.catalog import Catalog
from tests.catalog.content import add
with Catalog(sys.argv[1], dimension=8) as catalog:
    print("ready", flush=True)
    for i in range(int(sys.argv[2])):
        add(catalog, f"/{i}.mp4", seed=i, vectors=30)
"""


def test_killed_at_any_point_and_done_again_equals_undisturbed(tmp_path: Path) -> None:
    """What the catalog promises for the kill tests of jobs: parts are whole, and doing them again adds nothing."""
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    path = tmp_path / "killed.sqlite3"
    for i in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "40"], stdout=subprocess.PIPE, env=env)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 * i)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with Catalog(path, dimension=8) as killed:
        states = {part.state for video in killed.videos() for part in killed.parts(video.id)}
        assert states <= {"done", "pending"}
        for i in range(40):
            add(killed, f"/{i}.mp4", seed=i, vectors=30)
        with Catalog(tmp_path / "calm.sqlite3", dimension=8) as calm:
            for i in range(40):
                add(calm, f"/{i}.mp4", seed=i, vectors=30)
            assert list(killed.dump()) == list(calm.dump())
        assert killed.current_seq() == killed.count_vectors() == 40 * 2 * 60


def test_dump_is_json_and_leaves_changing_things_out(catalog: Catalog) -> None:
    add(catalog)
    content = list(catalog.dump())
    assert {table for table, _ in content} == {"videos", "parts", "segments", "vectors", "thumbnails", "token_sets"}
    text = json.dumps(content)
    for absent in ("_at", "seq", "facts"):
        assert f'{absent}"' not in text


def test_a_url_is_taken_and_its_password_never_shown(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'c.sqlite3'}")
    assert database.path == tmp_path / "c.sqlite3"
    database.close()
