"""``longreel jobs list|show|errors`` only look: they wait for nobody, and need no right to write."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from pipeline.errors import NotAVideo
from pipeline.store import Store
from tests.jobs.running import Ran, longreel
from tests.jobs.test_bad_input import mind_permissions

LOOKS = ("list", "show", "errors")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A library with a job that failed and one that goes on, in this process."""
    made = Store.create(tmp_path / "store", "openclip:A/random")
    with Catalog(made.catalog_path) as catalog:
        catalog.create_job("old", {}, "longreel submit")
        catalog.update_job("old", state="finished")
        catalog.record_error(NotAVideo("just text"), job_id="old")
        catalog.create_job("new", {}, "longreel submit")
        catalog.update_job("new", state="running", pid=os.getpid(), host=os.uname().nodename)
    return made


def look(store: Store, what: str, **options: object) -> Ran:
    job = [] if what == "list" else ["old"]
    return longreel("jobs", what, *job, "--store", store.path, "--json", timeout=30, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", LOOKS)
def test_while_another_process_writes(store: Store, what: str) -> None:
    with closing(sqlite3.connect(store.catalog_path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        ran = look(store, what)
        writer.execute("ROLLBACK")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("what", LOOKS)
def test_in_a_library_of_another_user_who_works_in_it(store: Store, what: str) -> None:
    with Catalog(store.catalog_path) as catalog:
        catalog.jobs()
        paths = [store.path, *store.path.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        writes = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a')", store.catalog_path]
        try:
            if subprocess.run(writes, preexec_fn=mind_permissions, capture_output=True, check=False).returncode == 0:
                pytest.skip("not here: running as root, which nothing can be kept from")
            ran = look(store, what, before=mind_permissions)
        finally:
            for path in paths:
                path.chmod(0o755 if path.is_dir() else 0o644)
    assert ran.code == 0, ran
