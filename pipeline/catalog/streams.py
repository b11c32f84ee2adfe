"""Live streams in the catalog: who watches which, how it goes, and when it ended.

A stream is one video, in state "live" while it runs. Media time goes on when it is opened again, so that all that was
ever seen of a camera lies on one line.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection as Rows
from sqlalchemy import Row, delete, func, insert, select, update

from pipeline.catalog.base import CatalogPart, is_alive, utc_now
from pipeline.catalog.ids import video_id_for
from pipeline.catalog.models import connections, parts, streams, videos
from pipeline.catalog.records import StreamRecord
from pipeline.errors import InputError, OptionError, StreamBusy, UnknownVideo
from pipeline.live.types import LiveState

__all__ = ["StreamCatalog", "forget_stream"]

_SILENT_SECONDS = 30.0  # a process on another machine that says nothing for so long is taken for dead
_INTERRUPTED = "Interrupted"
_OVER = (LiveState.ENDED.value, LiveState.FAILED.value)
# A stream's count: the column of its video where it adds up over all times that it was opened. What windows count
# (sampled, encoded, skipped) is added when they are committed.
_SUMMED = {
    "frames_received": "frames_decoded",
    "corrupt_frames": "corrupt_frames",
    "decode_errors": "decode_errors",
    "gap_seconds": "lost_seconds",
}


class StreamCatalog(CatalogPart):
    """Streams: open, heartbeat, stop, end, list."""

    def open_stream(
        self,
        uri: str,
        name: str,
        tags: Sequence[str],
        fingerprint: str,
        recipe_key: str,
        options: dict[str, Any],
    ) -> StreamRecord:
        """Begin to watch a stream, or go on with one that ended earlier.

        Args:
            uri: without credentials, as all that is kept.
            fingerprint, recipe_key: of what will be committed; earlier content by another recipe stays.
            options: for people to read; JSON values without credentials.

        Raises:
            StreamBusy: a process watches it already, this one included.
            InputError: that address is indexed as a file.
        """
        from pipeline.catalog.videos import upsert_video

        video_id, now = video_id_for(uri), utc_now()
        with self._write() as rows:
            known = rows.execute(select(streams).where(streams.c.video_id == video_id)).one_or_none()
            if known is None and rows.execute(select(parts.c.id).where(parts.c.video_id == video_id).limit(1)).first():
                raise InputError(f"{uri}: indexed as a file already; remove it first to watch it as a stream")
            if known is not None and _is_watched(known):
                raise StreamBusy(f"{uri}: process {known.pid} on {known.host} is watching this stream ({known.state})")
            values = {"uri": uri, "name": name, "state": "live", "fingerprint": fingerprint, "recipe_key": recipe_key}
            upsert_video(rows, video_id, {**values, "error_type": None, "error_message": None}, tags)
            rows.execute(delete(streams).where(streams.c.video_id == video_id))
            rows.execute(
                insert(streams).values(
                    video_id=video_id,
                    name=name,
                    state=LiveState.CONNECTING.value,
                    options=options,
                    counts={},
                    pid=os.getpid(),
                    host=socket.gethostname(),
                    stop_requested=False,
                    started_at=now,
                    heartbeat_at=now,
                )
            )
            _close_connections(rows, video_id, "interrupted")
            return _must(rows, video_id)

    def heartbeat_stream(self, video_id: str, state: LiveState, counts: Mapping[str, Any]) -> bool:
        """Say that a stream is watched still, how it stands and what was counted; returns whether it should stop.

        Args:
            state: one in which it is over changes nothing yet: :meth:`end_stream` ends it.
            counts: JSON values, those of :class:`pipeline.live.types.StreamCounts` among them.

        Raises:
            UnknownVideo: it was removed.
            StreamBusy: this process was taken for dead, and another one watches the stream now.
        """
        with self._write() as rows:
            row = _own(rows, video_id)
            values: dict[str, Any] = {"heartbeat_at": utc_now()}
            now = row.state if state.is_over or row.state in _OVER else state.value
            if row.error_type == _INTERRUPTED and not state.is_over:
                # A slow machine was silent for too long: it lives.
                now = state.value
                values |= {"ended_at": None, "error_type": None, "error_message": None}
                alive = {"state": "live", "error_type": None, "error_message": None}
                rows.execute(update(videos).where(videos.c.id == video_id).values(**alive))
            _set(rows, row, now, counts, **values)
            return bool(row.stop_requested)

    def end_stream(
        self,
        video_id: str,
        state: LiveState,
        error: BaseException | None = None,
        counts: Mapping[str, Any] | None = None,
    ) -> StreamRecord:
        """Close a stream: its video is done, or failed with its error; all content stays.

        Args:
            error: why it failed; its message must hold no credentials.
            counts: the last ones; those of the last heartbeat stay otherwise.

        Raises:
            OptionError: a state in which it is not over, or a failure without an error.
            UnknownVideo: it was removed.
            StreamBusy: another process watches it.
        """
        if not state.is_over or (state is LiveState.FAILED) != (error is not None):
            raise OptionError(
                f"stream state {state.value!r}: must be {' or '.join(_OVER)}, and failed, only failed, has an error"
            )
        with self._write() as rows:
            row = _own(rows, video_id)
            _end(rows, row, state, None if error is None else (type(error).__name__, str(error)), counts)
            return _must(rows, video_id)

    def request_stop(self, video_id: str) -> StreamRecord:
        """Ask whoever watches a stream to end it.

        Raises:
            InputError: it is over already.
            UnknownVideo: no such stream.
        """
        with self._write() as rows:
            row = _row(rows, video_id)
            if row.state in _OVER:
                raise InputError(f"stream {row.name} is {row.state}: only one that goes on can be stopped")
            rows.execute(update(streams).where(streams.c.video_id == video_id).values(stop_requested=True))
            return _must(rows, video_id)

    def stop_requested(self, video_id: str) -> bool:
        """Whether it should stop; one that was removed should."""
        with self._read() as rows:
            found = rows.execute(select(streams.c.stop_requested).where(streams.c.video_id == video_id)).scalar()
        return True if found is None else bool(found)

    def stream(self, video_id: str) -> StreamRecord:
        """The stream of exactly this video id.

        Raises:
            UnknownVideo: there is none.
        """
        with self._read() as rows:
            return _must(rows, video_id)

    def streams(self, *, running: bool = False) -> list[StreamRecord]:
        """All streams, or those that are not over, in the order of their names."""
        query = select(streams)
        if running:
            query = query.where(streams.c.state.notin_(_OVER))
        with self._read() as rows:
            found = rows.execute(query.order_by(streams.c.name, streams.c.video_id)).all()
            return [_record(rows, row) for row in found]

    def mark_interrupted_streams(self, *, alone: bool = False) -> list[str]:
        """Call the streams failed whose process is no more; returns their ids. Writes only when there are such.

        Args:
            alone: the caller holds the library's writer lock and watches none, so that nobody does.
        """
        with self._read() as rows:
            if not _abandoned(rows, alone):
                return []
        with self._write() as rows:
            dead = _abandoned(rows, alone)
            for row in dead:
                message = f"process {row.pid} on {row.host} ended without a word"
                _end(rows, row, LiveState.FAILED, (_INTERRUPTED, message), None)
            return [row.video_id for row in dead]


def forget_stream(rows: Rows, video_id: str) -> None:
    """A video that was a stream is one no more: it is indexed as a file from now on.

    Raises:
        StreamBusy: a process watches it.
    """
    known = rows.execute(select(streams).where(streams.c.video_id == video_id)).one_or_none()
    if known is None:
        return
    if _is_watched(known):
        raise StreamBusy(f"{known.name}: process {known.pid} on {known.host} is watching this as a stream")
    rows.execute(delete(streams).where(streams.c.video_id == video_id))
    rows.execute(delete(connections).where(connections.c.video_id == video_id))


def _is_watched(row: Row[Any]) -> bool:
    if row.state in _OVER:
        return False
    if row.host == socket.gethostname():
        return is_alive(row.pid, row.started_at)
    return bool(utc_now() - row.heartbeat_at < timedelta(seconds=_SILENT_SECONDS))


def _abandoned(rows: Rows, alone: bool) -> list[Row[Any]]:
    found = rows.execute(select(streams).where(streams.c.state.notin_(_OVER))).all()
    return [row for row in found if alone or not _is_watched(row)]


def _set(rows: Rows, row: Row[Any], state: str, counts: Mapping[str, Any] | None, **values: Any) -> None:
    """Write a stream's state and counts, and add to its video what was counted since the last time."""
    if counts is not None:
        values["counts"] = dict(counts)
        new = {name: counts.get(name, 0) - row.counts.get(name, 0) for name in _SUMMED}
        more = {column: videos.c[column] + new[name] for name, column in _SUMMED.items()}
        rows.execute(update(videos).where(videos.c.id == row.video_id).values(**more, updated_at=utc_now()))
    rows.execute(update(streams).where(streams.c.video_id == row.video_id).values(state=state, **values))


def _end(
    rows: Rows,
    row: Row[Any],
    state: LiveState,
    why: tuple[str, str] | None,
    counts: Mapping[str, Any] | None,
) -> None:
    now = utc_now()
    error = dict(zip(("error_type", "error_message"), why or (None, None), strict=True))
    _set(rows, row, state.value, counts, heartbeat_at=now, ended_at=now, stop_requested=False, **error)
    video_state = "failed" if state is LiveState.FAILED else "done"
    rows.execute(update(videos).where(videos.c.id == row.video_id).values(state=video_state, **error, updated_at=now))
    _close_connections(rows, row.video_id, "interrupted" if why and why[0] == _INTERRUPTED else state.value)


def _close_connections(rows: Rows, video_id: str, reason: str) -> None:
    """End the connections that nobody ended, where what is kept of them ends."""
    for row in rows.execute(
        select(connections).where(connections.c.video_id == video_id, connections.c.end_seconds.is_(None))
    ).all():
        end = max(row.start_seconds, _covered(rows, video_id))
        rows.execute(
            update(connections)
            .where(connections.c.video_id == video_id, connections.c.number == row.number)
            .values(end_seconds=end, reason=reason)
        )


def _covered(rows: Rows, video_id: str) -> float:
    """Up to which media time there is something of a stream."""
    ends = (
        select(func.max(connections.c.start_seconds)).where(connections.c.video_id == video_id),
        select(func.max(connections.c.end_seconds)).where(connections.c.video_id == video_id),
        select(videos.c.duration_seconds).where(videos.c.id == video_id),
    )
    return max(rows.execute(query).scalar() or 0.0 for query in ends)


def _row(rows: Rows, video_id: str) -> Row[Any]:
    row = rows.execute(select(streams).where(streams.c.video_id == video_id)).one_or_none()
    if row is None:
        raise UnknownVideo(f"no stream {video_id!r} in this library")
    return row


def _own(rows: Rows, video_id: str) -> Row[Any]:
    """The row of a stream that this process watches.

    Raises:
        UnknownVideo, StreamBusy.
    """
    row = _row(rows, video_id)
    if (row.pid, row.host) != (os.getpid(), socket.gethostname()):
        raise StreamBusy(
            f"{row.name}: process {row.pid} on {row.host} watches this stream now; it took this process for dead, "
            "because its heartbeats had stopped"
        )
    return row


def _must(rows: Rows, video_id: str) -> StreamRecord:
    return _record(rows, _row(rows, video_id))


def _record(rows: Rows, row: Row[Any]) -> StreamRecord:
    values = dict(row._mapping)
    first = rows.execute(
        select(connections.c.start_seconds, connections.c.utc)
        .where(connections.c.video_id == row.video_id)
        .order_by(connections.c.number)
        .limit(1)
    ).first()
    last = rows.execute(select(func.max(connections.c.number)).where(connections.c.video_id == row.video_id)).scalar()
    ours = parts.c.video_id == row.video_id
    number = rows.execute(select(parts.c.number).where(ours).order_by(parts.c.start_seconds.desc()).limit(1)).scalar()
    size = rows.execute(select(func.sum(parts.c.bytes)).where(ours)).scalar()
    return StreamRecord(
        **{**values, "state": LiveState(row.state)},
        uri=rows.execute(select(videos.c.uri).where(videos.c.id == row.video_id)).scalar_one(),
        resume_seconds=_covered(rows, row.video_id),
        next_connection=0 if last is None else last + 1,
        next_window=0 if number is None else number + 1,
        first_utc=None if first is None else first.utc - timedelta(seconds=first.start_seconds),
        bytes=int(size or 0),
    )
