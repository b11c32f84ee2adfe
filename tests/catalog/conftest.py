"""Made-up content for the catalog: real records, no media."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from tests.catalog.content import DIMENSION
from tests.catalog.postgres import Server, server


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=DIMENSION) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new catalog may be made, in either database."""
    if request.param == "sqlite":
        return str(tmp_path / "either.sqlite3")
    running: Server = request.getfixturevalue("postgres")
    return running.new_database()


@pytest.fixture
def either(target: str) -> Iterator[Catalog]:
    """A catalog in either database."""
    with Catalog(target, dimension=DIMENSION) as opened:
        yield opened
