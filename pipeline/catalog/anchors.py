"""Where media time stands in the wall clock: connections of streams, and files of which the start is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from sqlalchemy import Connection as Rows
from sqlalchemy import insert, select, update

from pipeline.catalog.base import CatalogPart, batched
from pipeline.catalog.models import connections, streams, videos
from pipeline.catalog.records import media_from_json, media_to_json
from pipeline.errors import LibraryError
from pipeline.live.types import Connection, utc_at
from pipeline.media import Span

__all__ = ["FOREVER_SECONDS", "AnchorCatalog", "anchors_in", "spans_between"]

FOREVER_SECONDS = 1e12


class AnchorCatalog(CatalogPart):
    """Connections of streams: add, end, list; the wall clock at a media time of any video."""

    def add_connection(self, video_id: str, connection: Connection) -> None:
        """Keep a connection of a stream, in place of one of the same number.

        Raises:
            LibraryError: no such stream (it was removed).
        """
        values = {
            "start_seconds": connection.start_seconds,
            "utc": connection.utc,
            "end_seconds": connection.end_seconds,
            "reason": connection.reason,
            "media": None if connection.info is None else media_to_json(connection.info),
        }
        here = (connections.c.video_id == video_id) & (connections.c.number == connection.number)
        with self._write() as rows:
            if rows.execute(select(streams.c.video_id).where(streams.c.video_id == video_id)).first() is None:
                raise LibraryError(f"no stream {video_id!r} in this library: it was removed")
            if not rows.execute(update(connections).where(here).values(**values)).rowcount:
                rows.execute(insert(connections).values(video_id=video_id, number=connection.number, **values))

    def end_connection(self, video_id: str, number: int, end_seconds: float, reason: str) -> None:
        """Say where a connection ended and why.

        Raises:
            LibraryError: no such connection.
        """
        with self._write() as rows:
            here = (connections.c.video_id == video_id) & (connections.c.number == number)
            if not rows.execute(
                update(connections).where(here).values(end_seconds=end_seconds, reason=reason)
            ).rowcount:
                raise LibraryError(f"stream {video_id!r} has no connection {number}")

    def connections_of(self, video_id: str) -> list[Connection]:
        """The connections of a stream, in the order of their numbers; none for a file."""
        query = select(connections).where(connections.c.video_id == video_id).order_by(connections.c.number)
        with self._read() as rows:
            return [
                Connection(
                    number=row.number,
                    start_seconds=row.start_seconds,
                    utc=row.utc,
                    end_seconds=row.end_seconds,
                    reason=row.reason,
                    info=None if row.media is None else media_from_json(row.media),
                )
                for row in rows.execute(query)
            ]

    def utc_of(self, video_id: str, seconds: float) -> datetime | None:
        """The wall clock at a media time: of a stream by its connections, of a file by its start time; ``None`` where
        it is not known."""
        return utc_at(list(self.anchors_of([video_id]).get(video_id, ())), seconds)

    def anchors_of(self, video_ids: Iterable[str]) -> dict[str, list[Connection]]:
        """Where these videos' times stand in the wall clock, for :func:`pipeline.live.types.utc_at`; videos of which
        nobody knows are left out. A file's start time is its one connection."""
        found: dict[str, list[Connection]] = {}
        with self._read() as rows:
            for batch in batched(video_ids):
                found |= anchors_in(rows, batch)
        return found


def anchors_in(rows: Rows, video_ids: Sequence[str] | None = None) -> dict[str, list[Connection]]:
    """The anchors of these videos, or of all streams."""
    query = select(connections.c.video_id, connections.c.number, connections.c.start_seconds, connections.c.utc)
    if video_ids is not None:
        query = query.where(connections.c.video_id.in_(video_ids))
    found: dict[str, list[Connection]] = {}
    for row in rows.execute(query.order_by(connections.c.video_id, connections.c.number)):
        found.setdefault(row.video_id, []).append(Connection(row.number, row.start_seconds, row.utc))
    if video_ids is not None:
        files = select(videos.c.id, videos.c.start_time).where(videos.c.id.in_(video_ids))
        for file in rows.execute(files.where(videos.c.start_time.is_not(None))):
            found.setdefault(file.id, [Connection(0, 0.0, file.start_time)])
    return found


def spans_between(anchors: Sequence[Connection], after: datetime | None, before: datetime | None) -> list[Span]:
    """Where in a video the wall clock is later than ``after`` and earlier than ``before``, in order; neighbours are
    joined. ``None`` is no limit.

    A clock that was set back between two connections may give several spans.
    """
    found: list[Span] = []
    ends = [right.start_seconds for _, right in pairwise(anchors)] + [FOREVER_SECONDS]
    for anchor, end in zip(anchors, ends, strict=True):
        start = anchor.start_seconds
        if after is not None:
            start = max(start, start + (after - anchor.utc).total_seconds())
        if before is not None:
            end = min(end, anchor.start_seconds + (before - anchor.utc).total_seconds())
        if start >= end:
            continue
        if found and found[-1].end_seconds == start:
            start = found.pop().start_seconds
        found.append(Span(start, end))
    return found
