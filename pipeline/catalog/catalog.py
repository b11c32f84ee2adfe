"""The catalog: the truth about a library, in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sqlalchemy import select

from pipeline.catalog.anchors import AnchorCatalog
from pipeline.catalog.caption_search import CaptionSearchCatalog
from pipeline.catalog.captions import CaptionCatalog
from pipeline.catalog.database import Database
from pipeline.catalog.jobs_table import JobCatalog
from pipeline.catalog.models import (
    captions,
    connections,
    parts,
    segments,
    thumbnails,
    token_sets,
    vectors,
    video_tags,
    videos,
    wordless,
)
from pipeline.catalog.streams import StreamCatalog
from pipeline.catalog.vectors import VectorCatalog
from pipeline.catalog.videos import VideoCatalog
from pipeline.catalog.windows import WindowCatalog

__all__ = ["Catalog"]

# Left out of the canonical content: times of day and change numbers differ between two runs of the same work, and
# `facts` tells by which device and batch size it was done.
_CHANGING = {"added_at", "updated_at", "committed_at", "seq", "facts"}


class Catalog(
    VideoCatalog,
    WindowCatalog,
    VectorCatalog,
    CaptionCatalog,
    CaptionSearchCatalog,
    StreamCatalog,
    AnchorCatalog,
    JobCatalog,
):
    """Videos, parts, segments, vectors, captions, streams, jobs and errors of a library.

    Each method is one transaction. Any number of threads and processes may read while one writes; writers wait for each
    other. Plain frozen records come out, never rows of the database.

    Args:
        target: path of the SQLite file, or a SQLAlchemy URL.
        dimension: width of the library's vectors; when given, others are refused.
        create: make the catalog when there is none.

    Raises:
        NotALibrary, CatalogTooNew, DiskFull, LibraryBusy, LibraryError: as :class:`pipeline.catalog.database.Database`
            says; every method may raise the last three.
    """

    def __init__(self, target: Path | str, *, dimension: int | None = None, create: bool = True) -> None:
        self._database = Database(target, create=create)
        self.dimension = dimension

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def dump(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The content in a canonical order, one ``(table, values)`` a row, for comparing two catalogs.

        Binary values come as their digests; what differs between two runs of the same work (times of day, change
        numbers, facts about the machine, the history of jobs) is left out.
        """
        keys: dict[Any, tuple[str, ...]] = {
            videos: ("id",),
            video_tags: ("video_id", "tag"),
            parts: ("id",),
            segments: ("id",),
            vectors: ("id",),
            thumbnails: ("segment_id",),
            token_sets: ("segment_id",),
            captions: ("segment_id", "model", "start_seconds", "text"),
            wordless: ("segment_id", "model"),
            connections: ("video_id", "number"),
        }
        with self._database.read() as connection:
            for table, key in keys.items():
                kept = [column for column in table.c if column.name not in _CHANGING]
                if table is captions:
                    kept = [column for column in kept if column.name != "id"]
                for row in connection.execute(select(*kept).order_by(*(table.c[name] for name in key))):
                    yield table.name, {name: _printable(value) for name, value in row._mapping.items()}


def _printable(value: Any) -> Any:
    return blake2b(value, digest_size=16).hexdigest() if isinstance(value, bytes) else value
