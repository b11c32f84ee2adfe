"""Videos in the catalog: finding and listing them, planning a version, finishing, failing and removing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from pipeline.catalog.base import CatalogPart, batched, utc_now
from pipeline.catalog.ids import part_id_for
from pipeline.catalog.models import errors, parts, segments, vectors, video_tags, videos
from pipeline.catalog.parts import delete_parts, part_record, part_rows
from pipeline.catalog.records import VIDEO_STATES, PartRecord, VideoRecord, media_from_json, media_to_json
from pipeline.catalog.streams import forget_stream
from pipeline.errors import InputError, LibraryError, OptionError, UnknownVideo
from pipeline.media import MediaInfo, Span

__all__ = ["VideoCatalog", "upsert_video"]

_COUNTED = (
    "frames_decoded",
    "frames_sampled",
    "frames_encoded",
    "skipped_by_gate",
    "corrupt_frames",
    "decode_errors",
    "lost_seconds",
)
_DAMAGE_MESSAGES = 20
_ID_PREFIX = 4


class VideoCatalog(CatalogPart):
    """Videos: find, list, plan, finish, fail, remove."""

    # -- reading ---------------------------------------------------------------------------------------------------

    def find_video(self, video_id: str) -> VideoRecord | None:
        """The video of exactly this id, or ``None``."""
        with self._read() as connection:
            return _one(connection, video_id)

    def video(self, id_or_uri_or_name: str) -> VideoRecord:
        """The video that a person means: by id, URI, path, name, or the beginning of an id (four digits or more).

        Raises:
            UnknownVideo: none of that description (the message gives near names), or several.
        """
        wanted = id_or_uri_or_name
        with self._read() as connection:
            if wanted.isascii() and (found := _one(connection, wanted)) is not None:
                return found
            uris = {wanted, os.path.abspath(wanted), os.path.realpath(wanted)} if "://" not in wanted else {wanted}
            tries = [videos.c.uri.in_(uris), videos.c.name == wanted]
            if len(wanted) >= _ID_PREFIX and wanted.isalnum():
                tries.append(videos.c.id.startswith(wanted))
            for condition in tries:
                ids = connection.execute(select(videos.c.id).where(condition).order_by(videos.c.id)).scalars().all()
                if len(ids) > 1:
                    raise UnknownVideo(f"{wanted!r} names {len(ids)} videos ({', '.join(ids[:5])}); give the id")
                if ids:
                    return _must(connection, ids[0])
            known = connection.execute(select(videos.c.name, videos.c.uri, videos.c.id)).all()
        near = difflib.get_close_matches(wanted, [value for row in known for value in row], n=3, cutoff=0.5)
        hint = f"; near: {', '.join(repr(name) for name in dict.fromkeys(near))}" if near else ""
        raise UnknownVideo(f"no video {wanted!r} among the {len(known)} of this library{hint}")

    def videos(self, tag: str | None = None, state: str | None = None) -> list[VideoRecord]:
        """All videos, or those with this tag and in this state, in the order of their coming."""
        query = select(videos.c.id)
        if tag is not None:
            query = query.join(video_tags, video_tags.c.video_id == videos.c.id).where(video_tags.c.tag == tag)
        if state is not None:
            if state not in VIDEO_STATES:
                raise OptionError(f"video state {state!r}: must be one of {', '.join(VIDEO_STATES)}")
            query = query.where(videos.c.state == state)
        with self._read() as connection:
            return _records(connection, query)

    def names_of(self, video_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """URI and name by id; ids that are gone are left out."""
        found: dict[str, tuple[str, str]] = {}
        with self._read() as connection:
            for batch in batched(video_ids):
                query = select(videos.c.id, videos.c.uri, videos.c.name).where(videos.c.id.in_(batch))
                found |= {row.id: (row.uri, row.name) for row in connection.execute(query)}
        return found

    def count_videos(self) -> int:
        with self._read() as connection:
            return int(connection.execute(select(func.count()).select_from(videos)).scalar_one())

    def parts(self, video_id: str) -> list[PartRecord]:
        """The parts of the version that was planned last, in time order."""
        with self._read() as connection:
            return [part_record(row) for row in part_rows(connection, video_id)]

    def pending_parts(self, video_id: str) -> list[PartRecord]:
        """Those that still have to be done: never committed, or failed."""
        return [part for part in self.parts(video_id) if part.state != "done"]

    # -- writing ---------------------------------------------------------------------------------------------------

    def plan_video(
        self,
        video_id: str,
        uri: str,
        name: str,
        tags: Sequence[str],
        start_time: datetime | None,
        fingerprint: str,
        recipe_key: str,
        info: MediaInfo,
        parts: Sequence[Span],
    ) -> list[PartRecord]:
        """Say which parts this version of a video (this content, this recipe) consists of.

        Planning the same again keeps what is done. Name, tags and start time of a known video change as
        :meth:`describe_video` says. Another version takes nothing away yet: the old content stays
        searchable until the first part of the new one is committed.

        Returns:
            All parts of the version, in time order, with their states.

        Raises:
            InputError: no parts, parts that overlap, or a start time without a time zone.
            StreamBusy: it is being watched as a stream.
        """
        spans = sorted(parts)
        if not spans:
            raise InputError(f"{uri}: a video is planned with at least one part")
        for left, right in pairwise(spans):
            if left.overlaps(right):
                raise InputError(f"{uri}: parts {left} and {right} overlap")
        if start_time is not None and start_time.tzinfo is None:
            raise InputError(f"{uri}: start time {start_time.isoformat()} has no time zone")
        with self._write() as connection:
            values: dict[str, Any] = {
                "uri": uri,
                **_described(name, start_time),
                "fingerprint": fingerprint,
                "recipe_key": recipe_key,
                "media": media_to_json(info),
                "duration_seconds": info.duration_seconds,
            }
            forget_stream(connection, video_id)
            upsert_video(connection, video_id, values, tags)
            wanted = {part_id_for(video_id, fingerprint, recipe_key, span): (i, span) for i, span in enumerate(spans)}
            _replan(connection, video_id, fingerprint, recipe_key, wanted)
            rows = part_rows(connection, video_id)
            if any(row.state != "done" for row in rows):
                # A video with work to do is pending; one that is all there keeps its state until it is finished.
                connection.execute(
                    update(videos)
                    .where(videos.c.id == video_id)
                    .values(state="pending", error_type=None, error_message=None)
                )
            return [part_record(row) for row in rows]

    def describe_video(
        self, video_id: str, name: str, tags: Sequence[str] = (), start_time: datetime | None = None
    ) -> VideoRecord:
        """Take over what a person says of a known video, without touching its content.

        Tags are added to those that it has: naming none, or others, takes none away. A start time replaces the one it
        has, none keeps it. So does a name, unless it is the file's own, which is what a source is called that nobody
        gave a name. Nothing is written when nothing differs.

        Raises:
            UnknownVideo: no such video.
            InputError: a start time without a time zone.
        """
        if start_time is not None and start_time.tzinfo is None:
            raise InputError(f"{name}: start time {start_time.isoformat()} has no time zone")
        with self._read() as connection:
            record = _must(connection, video_id)
        wanted = _known_values(record.uri, _described(name, start_time))
        if all(getattr(record, key) == value for key, value in wanted.items()) and set(tags) <= set(record.tags):
            return record
        with self._write() as connection:
            _must(connection, video_id)
            upsert_video(connection, video_id, {"uri": record.uri, **wanted}, tags)
            return _must(connection, video_id)

    def finish_video(self, video_id: str) -> VideoRecord:
        """Sum up the parts: done when all are, failed when one failed, pending while some are neither.

        Raises:
            UnknownVideo: no such video.
        """
        with self._write() as connection:
            _must(connection, video_id)
            rows = part_rows(connection, video_id)
            if rows:
                values = _summed(rows)
                media = connection.execute(select(videos.c.media).where(videos.c.id == video_id)).scalar_one()
                if media and media["duration_seconds"] is not None:
                    values["duration_seconds"] = media["duration_seconds"]
                connection.execute(update(videos).where(videos.c.id == video_id).values(**values, updated_at=utc_now()))
            return _must(connection, video_id)

    def fail_video(
        self,
        video_id: str,
        uri: str,
        name: str,
        error: BaseException,
        job_id: str | None = None,
        tags: Sequence[str] = (),
        at_seconds: float | None = None,
    ) -> VideoRecord:
        """Record that this video cannot be used, and why. Content that it had before stays searchable."""
        now = utc_now()
        kind, message = type(error).__name__, str(error)
        with self._write() as connection:
            values = {"uri": uri, "name": name, "state": "failed", "error_type": kind, "error_message": message}
            upsert_video(connection, video_id, values, tags)
            connection.execute(
                insert(errors).values(
                    job_id=job_id,
                    video_id=video_id,
                    uri=uri,
                    type=kind,
                    message=message,
                    at_seconds=at_seconds,
                    happened_at=now,
                )
            )
            return _must(connection, video_id)

    def remove_video(self, video_id: str) -> VideoRecord:
        """Delete a video with everything that hangs on it. The history of jobs and errors stays.

        Returns:
            What was removed.

        Raises:
            UnknownVideo: no such video.
        """
        with self._write() as connection:
            record = _must(connection, video_id)
            delete_parts(connection, parts.c.video_id == video_id)
            connection.execute(delete(videos).where(videos.c.id == video_id))
            return record


def _described(name: str, start_time: datetime | None) -> dict[str, Any]:
    return {"name": name} if start_time is None else {"name": name, "start_time": start_time}


def _known_values(uri: str, values: dict[str, Any]) -> dict[str, Any]:
    """What of ``values`` changes a video that is known: all but the name that every file has."""
    from pipeline.sources.manifest import source_name

    return {key: value for key, value in values.items() if key != "name" or value != source_name(uri)}


def upsert_video(connection: Connection, video_id: str, values: dict[str, Any], tags: Sequence[str]) -> None:
    """Make a video's row, or change what of ``values`` differs; tags are added to those that it has."""
    now = utc_now()
    known = connection.execute(select(videos.c.id).where(videos.c.id == video_id)).scalar()
    if known is None:
        taken = connection.execute(select(videos.c.id).where(videos.c.uri == values["uri"])).scalar()
        if taken is not None:
            raise LibraryError(f"{values['uri']}: already known as video {taken}, not {video_id}")
        connection.execute(
            insert(videos).values(**{"id": video_id, "state": "pending", "added_at": now, "updated_at": now, **values})
        )
    else:
        changed = _known_values(values["uri"], values)
        connection.execute(update(videos).where(videos.c.id == video_id).values(**changed, updated_at=now))
    there = connection.execute(select(video_tags.c.tag).where(video_tags.c.video_id == video_id)).scalars().all()
    new = sorted(set(tags) - set(there))
    if new:
        connection.execute(insert(video_tags), [{"video_id": video_id, "tag": tag} for tag in new])


def _replan(
    connection: Connection, video_id: str, fingerprint: str, recipe_key: str, wanted: dict[str, tuple[int, Span]]
) -> None:
    """Make the parts of the video those wanted; others with content are kept aside until a new one is committed."""
    known = connection.execute(
        select(parts.c.id, parts.c.state, parts.c.superseded).where(parts.c.video_id == video_id)
    ).all()
    useless = [row.id for row in known if row.id not in wanted and row.state != "done"]
    delete_parts(connection, parts.c.id.in_(useless))
    old = [row.id for row in known if row.id not in wanted and row.state == "done"]
    if old and any(row.id in wanted and row.state == "done" for row in known):
        # The new plan shares done parts with the old: it is searchable already, so the rest goes now.
        delete_parts(connection, parts.c.id.in_(old))
    else:
        connection.execute(update(parts).where(parts.c.id.in_(old)).values(superseded=True))
    connection.execute(update(parts).where(parts.c.id.in_(list(wanted))).values(superseded=False))
    present = {row.id for row in known}
    new = [
        {
            "id": part_id,
            "video_id": video_id,
            "number": number,
            "start_seconds": span.start_seconds,
            "end_seconds": span.end_seconds,
            "fingerprint": fingerprint,
            "recipe_key": recipe_key,
            "state": "pending",
        }
        for part_id, (number, span) in wanted.items()
        if part_id not in present
    ]
    if new:
        connection.execute(insert(parts), new)
    for part_id, (number, _) in wanted.items():
        if part_id in present:
            connection.execute(update(parts).where(parts.c.id == part_id).values(number=number))


def _summed(rows: Sequence[Row[Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in _COUNTED}
    states = {row.state for row in rows}
    values["state"] = "failed" if "failed" in states else "pending" if "pending" in states else "done"
    failed = next((row for row in rows if row.state == "failed"), None)
    values["error_type"] = failed.error_type if failed else None
    values["error_message"] = failed.error_message if failed else None
    values["decoder"] = "+".join(sorted({row.decoder for row in rows if row.decoder})) or None
    values["decoder_reason"] = (
        "; ".join(dict.fromkeys(row.decoder_reason for row in rows if row.decoder_reason)) or None
    )
    values["damage"] = list(dict.fromkeys(message for row in rows for message in row.damage))[:_DAMAGE_MESSAGES]
    ends = [row.covered_end_seconds for row in rows if row.covered_end_seconds is not None]
    if ends:
        values["duration_seconds"] = max(ends)
    return values


def _must(connection: Connection, video_id: str) -> VideoRecord:
    found = _one(connection, video_id)
    if found is None:
        raise UnknownVideo(f"no video {video_id!r} in this library")
    return found


def _one(connection: Connection, video_id: str) -> VideoRecord | None:
    found = _records(connection, select(videos.c.id).where(videos.c.id == video_id))
    return found[0] if found else None


def _records(connection: Connection, ids: Any) -> list[VideoRecord]:
    rows = connection.execute(select(videos).where(videos.c.id.in_(ids)).order_by(videos.c.added_at, videos.c.id)).all()
    tags: dict[str, list[str]] = {}
    for row in connection.execute(select(video_tags).where(video_tags.c.video_id.in_(ids)).order_by(video_tags.c.tag)):
        tags.setdefault(row.video_id, []).append(row.tag)
    counts = [
        {
            row[0]: row[1]
            for row in connection.execute(
                select(table.c.video_id, func.count()).where(table.c.video_id.in_(ids)).group_by(table.c.video_id)
            )
        }
        for table in (segments, vectors)
    ]
    return [_record(row, tags.get(row.id, []), *(count.get(row.id, 0) for count in counts)) for row in rows]


def _record(row: Row[Any], tags: list[str], segment_count: int, vector_count: int) -> VideoRecord:
    values = dict(row._mapping)
    values["tags"] = tuple(tags)
    values["damage"] = tuple(values["damage"])
    values["media"] = media_from_json(values["media"]) if values["media"] else None
    return VideoRecord(**values, segments=segment_count, vectors=vector_count)
