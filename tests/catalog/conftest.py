"""Made-up content for the catalog: real records, no media."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from tests.catalog.content import DIMENSION


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3", dimension=DIMENSION) as opened:
        yield opened
