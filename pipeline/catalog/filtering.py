"""What a :class:`~pipeline.catalog.filters.Filter` means in SQL, for anything that has a video and a span."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, or_, select
from sqlalchemy import Connection as Rows

from pipeline.catalog.anchors import anchors_in, spans_between
from pipeline.catalog.base import batched
from pipeline.catalog.filters import Filter
from pipeline.catalog.models import video_tags, videos
from pipeline.live.types import Connection
from pipeline.media import Span

__all__ = ["filtered", "places"]

_CONDITIONS = 300  # in one expression; SQLite takes none deeper than 1000


def filtered(rows: Rows, query: Select[Any], table: Table, where: Filter) -> Select[Any]:
    """A query of vectors or captions, narrowed to those that a filter lets through; overlapping its times is enough."""
    if where.video_id is not None:
        query = query.where(table.c.video_id == where.video_id)
    if where.tag is not None:
        query = query.where(table.c.video_id.in_(select(video_tags.c.video_id).where(video_tags.c.tag == where.tag)))
    if where.added_after is not None:
        query = query.where(table.c.video_id.in_(select(videos.c.id).where(videos.c.added_at > where.added_after)))
    if (span := where.span) is not None:
        query = query.where(table.c.start_seconds < span.end_seconds, table.c.end_seconds > span.start_seconds)
    if where.after is not None or where.before is not None:
        query = query.where(_recorded(rows, table, where.after, where.before))
    return query


def places(rows: Rows, where: Filter, video_ids: Sequence[str]) -> dict[str, list[Span]] | None:
    """Where in these videos a filter looks: their spans in order, none of one that it leaves out altogether; ``None``
    when it does not look at times."""
    if where.after is None and where.before is None:
        return None if where.span is None else {video_id: [where.span] for video_id in video_ids}
    found = {}
    for video_id, anchors in anchors_in(rows, video_ids).items():
        spans = spans_between(anchors, where.after, where.before)
        if (limits := where.span) is not None:
            cuts = ((max(s.start_seconds, limits.start_seconds), min(s.end_seconds, limits.end_seconds)) for s in spans)
            spans = [Span(start, end) for start, end in cuts if end > start]
        found[video_id] = spans
    return found


def _recorded(rows: Rows, table: Table, after: datetime | None, before: datetime | None) -> ColumnElement[bool]:
    """Rows of which some part was recorded between two times. Files that lie between them count whole; of streams and
    of files that were being recorded at one of them, the place is worked out here, as databases differ in how they
    reckon with times."""
    cut = anchors_in(rows)
    whole: list[ColumnElement[bool]] = [videos.c.start_time.is_not(None)]
    for limit in (after, before):
        if limit is None:
            continue
        begun = select(videos.c.id, videos.c.start_time, videos.c.duration_seconds).where(videos.c.start_time < limit)
        for row in rows.execute(begun):
            if row.duration_seconds is None or row.duration_seconds > (limit - row.start_time).total_seconds():
                cut.setdefault(row.id, [Connection(0, 0.0, row.start_time)])
    if after is not None:
        whole.append(videos.c.start_time >= after)
    if before is not None:
        whole.append(videos.c.start_time < before)
    whole += [videos.c.id.not_in(some) for some in batched(cut, _CONDITIONS)]
    spans = [(video_id, span) for video_id, anchors in cut.items() for span in spans_between(anchors, after, before)]
    found: list[ColumnElement[bool]] = [table.c.video_id.in_(select(videos.c.id).where(*whole))]
    one = table.alias()
    for some in batched(spans, _CONDITIONS):
        places = [
            (one.c.video_id == video_id)
            & (one.c.end_seconds > at.start_seconds)
            & (one.c.start_seconds < at.end_seconds)
            for video_id, at in some
        ]
        found.append(table.c.id.in_(select(one.c.id).where(or_(*places))))
    return or_(*found)
