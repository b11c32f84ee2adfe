"""Windows of live streams in the catalog: committed while they are open, replaced as they grow, pruned when they are
old.

A window is a part with one segment. While it is open its provisional form is committed again and again, each time in
place of the one before, so that what was just seen is found within seconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection as Rows
from sqlalchemy import delete, func, insert, select, update

from pipeline.catalog.base import batched, utc_now
from pipeline.catalog.ids import part_id_for, segment_id_for
from pipeline.catalog.models import connections, parts, streams, videos
from pipeline.catalog.parts import PartCatalog, delete_parts, insert_segments
from pipeline.catalog.records import CommittedWindow, Pruned
from pipeline.errors import LibraryError, OptionError
from pipeline.live.types import LiveWindow

__all__ = ["WindowCatalog"]

_PRUNED_AT_ONCE = 500  # windows a transaction: others want to write, too


class WindowCatalog(PartCatalog):
    """Windows of streams: commit and prune."""

    def commit_window(
        self, video_id: str, fingerprint: str, recipe_key: str, window: LiveWindow, replaces: str | None = None
    ) -> CommittedWindow:
        """Keep a window of a stream, in one transaction.

        Args:
            replaces: part id of the form of this window that was committed last; it goes, with its captions. One of
                the same span goes without being named, so that doing it again changes nothing.

        Raises:
            LibraryError: no such stream (it was removed), or a vector has another width than the library's or is not
                finite.
        """
        record = window.record
        self._check(f"stream {video_id}", [record])
        part_id = part_id_for(video_id, fingerprint, recipe_key, window.span)
        with self._write() as rows:
            if rows.execute(select(streams.c.video_id).where(streams.c.video_id == video_id)).first() is None:
                raise LibraryError(f"no stream {video_id!r} in this library: it was removed")
            old = rows.execute(
                select(parts).where(parts.c.video_id == video_id, parts.c.id.in_([part_id, replaces or part_id]))
            ).all()
            delete_parts(rows, parts.c.id.in_([row.id for row in old]))
            counts = {
                "frames_sampled": window.frames_sampled,
                "frames_encoded": window.frames_encoded,
                "skipped_by_gate": max(0, window.frames_sampled - window.frames_encoded),
            }
            rows.execute(
                insert(parts).values(
                    id=part_id,
                    video_id=video_id,
                    number=window.index,
                    start_seconds=window.span.start_seconds,
                    end_seconds=window.span.end_seconds,
                    fingerprint=fingerprint,
                    recipe_key=recipe_key,
                    state="done",
                    covered_start_seconds=window.span.start_seconds,
                    covered_end_seconds=window.span.end_seconds,
                    facts={**window.facts, "closed": window.closed},
                    committed_at=utc_now(),
                    **counts,
                )
            )
            size = insert_segments(rows, video_id, part_id, [record])
            rows.execute(update(parts).where(parts.c.id == part_id).values(bytes=size))
            _add_to_video(rows, video_id, counts, old, window.span.end_seconds)
        return CommittedWindow(part_id, segment_id_for(part_id, record.index))

    def stream_bytes(self, video_id: str) -> int:
        """What a stream takes: its thumbnails, token sets and vectors."""
        query = select(func.coalesce(func.sum(parts.c.bytes), 0)).where(parts.c.video_id == video_id)
        with self._read() as rows:
            return int(rows.execute(query).scalar_one())

    def prune_stream(self, video_id: str, before_seconds: float) -> Pruned:
        """Delete the windows of a stream that end at or before a media time, with all that hangs on them, and forget
        the connections before. The latest one stays, as it may be written still."""
        with self._read() as rows:
            latest = _latest(rows, video_id)
            query = select(parts.c.id, parts.c.bytes).where(
                parts.c.video_id == video_id, parts.c.end_seconds <= before_seconds, parts.c.id != latest
            )
            found = rows.execute(query.order_by(parts.c.start_seconds, parts.c.id)).all()
        return self._prune(video_id, found, before_seconds)

    def prune_stream_to(self, video_id: str, max_bytes: int) -> Pruned:
        """Delete the oldest windows of a stream until it takes at most so much; see :meth:`prune_stream`.

        Raises:
            OptionError: less than 0 bytes.
        """
        if max_bytes < 0:
            raise OptionError(f"max_bytes {max_bytes}: must be 0 or more")
        with self._read() as rows:
            order = (parts.c.start_seconds.desc(), parts.c.id.desc())
            held = func.sum(parts.c.bytes).over(order_by=order).label("held")
            running = select(parts.c.id, parts.c.bytes, parts.c.start_seconds, held)
            one = running.where(parts.c.video_id == video_id).subquery()
            query = select(one.c.id, one.c.bytes).where(one.c.held > max_bytes, one.c.id != _latest(rows, video_id))
            found = rows.execute(query.order_by(one.c.start_seconds, one.c.id)).all()
        return self._prune(video_id, found)

    def _prune(self, video_id: str, found: Any, before_seconds: float | None = None) -> Pruned:
        windows = freed = 0
        for batch in batched(found, _PRUNED_AT_ONCE):
            with self._write() as rows:
                there = parts.c.id.in_([row.id for row in batch]) & (parts.c.video_id == video_id)
                kept = rows.execute(select(func.count(), func.sum(parts.c.bytes)).where(there)).one()
                delete_parts(rows, there)
                windows, freed = windows + kept[0], freed + int(kept[1] or 0)
        with self._read() as rows:
            until = rows.execute(select(func.min(parts.c.start_seconds)).where(parts.c.video_id == video_id)).scalar()
        # A stream of which only captions are written, to files, has connections and no windows.
        limit = before_seconds if until is None else until
        if limit is not None and (windows or until is None):
            with self._write() as rows:
                _prune_connections(rows, video_id, limit)
        return Pruned(windows, freed, until)


def _latest(rows: Rows, video_id: str) -> str | None:
    query = select(parts.c.id).where(parts.c.video_id == video_id)
    found: str | None = rows.execute(query.order_by(parts.c.start_seconds.desc(), parts.c.id.desc()).limit(1)).scalar()
    return found


def _prune_connections(rows: Rows, video_id: str, until_seconds: float) -> None:
    """Forget the connections of which nothing is left; the first stays, for where media time began."""
    ours = connections.c.video_id == video_id
    numbers = select(func.min(connections.c.number), func.max(connections.c.number)).where(ours)
    first, last = rows.execute(numbers.where(connections.c.start_seconds <= until_seconds)).one()
    if first is not None:
        rows.execute(delete(connections).where(ours, connections.c.number > first, connections.c.number < last))


def _add_to_video(rows: Rows, video_id: str, counts: dict[str, int], old: Any, end_seconds: float) -> None:
    more = {name: videos.c[name] + (count - sum(getattr(row, name) for row in old)) for name, count in counts.items()}
    known = func.coalesce(videos.c.duration_seconds, 0.0)
    duration = rows.execute(select(known).where(videos.c.id == video_id)).scalar_one()
    rows.execute(
        update(videos)
        .where(videos.c.id == video_id)
        .values(**more, duration_seconds=max(duration, end_seconds), updated_at=utc_now())
    )
