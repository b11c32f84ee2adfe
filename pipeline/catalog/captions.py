"""Captions of segments: keeping them, and knowing what has some."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import case, delete, insert, select, update

from pipeline.catalog.base import CatalogPart, batched
from pipeline.catalog.models import captions, segments, token_sets, wordless
from pipeline.catalog.records import CaptionRecord
from pipeline.errors import LibraryError, SegmentGone

__all__ = ["CaptionCatalog"]


class CaptionCatalog(CatalogPart):
    """Captions: keep them, find out where they are missing and what they can be made of."""

    def keep_captions(
        self, video_id: str, model: str, found: Mapping[int, CaptionRecord], without: Collection[int] = ()
    ) -> None:
        """Keep what a model found for some segments of a video, in place of what it found before.

        Args:
            found: a caption for each of these segments.
            without: segments that it looked at and had no words for.

        Raises:
            LibraryError: one of the segments is not there (the video was removed, or indexed anew), or a caption is of
                another video or model; nothing is kept then.
        """
        for number, caption in found.items():
            if (caption.video_id, caption.model) != (video_id, model):
                raise LibraryError(
                    f"segment {number} of video {video_id}: a caption of {model} was expected, got one of "
                    f"{caption.model} for video {caption.video_id}"
                )
        with self._write() as connection:
            for batch in batched(sorted({*found, *without})):
                there = connection.execute(
                    select(segments.c.id).where(segments.c.id.in_(batch), segments.c.video_id == video_id)
                ).scalars()
                if gone := sorted(set(batch) - set(there)):
                    raise LibraryError(
                        f"video {video_id} has no segment {gone[0]} any more: it was removed or indexed anew"
                    )
                for table in (captions, wordless):
                    connection.execute(delete(table).where(table.c.segment_id.in_(batch), table.c.model == model))
                if words := [_values(number, found[number]) for number in batch if number in found]:
                    connection.execute(insert(captions), words)
                if silent := [{"segment_id": number, "model": model} for number in batch if number not in found]:
                    connection.execute(insert(wordless), silent)

    def add_caption(self, segment_id: int, caption: CaptionRecord) -> int:
        """Keep one more caption of a segment; returns its number, for :meth:`extend_caption`.

        Raises:
            SegmentGone: there is no such segment of that video (it was replaced, pruned or removed).
        """
        here = (segments.c.id == segment_id) & (segments.c.video_id == caption.video_id)
        with self._write() as connection:
            if connection.execute(select(segments.c.id).where(here)).first() is None:
                raise SegmentGone(
                    f"video {caption.video_id} has no segment {segment_id} any more: it was replaced or removed"
                )
            key = connection.execute(insert(captions).values(**_values(segment_id, caption))).inserted_primary_key
            assert key is not None
            return int(key[0])

    def extend_caption(self, caption_id: int, end_seconds: float) -> bool:
        """Let a caption hold on to a later end; an earlier one changes nothing. False when it is gone."""
        held = case((captions.c.end_seconds < end_seconds, end_seconds), else_=captions.c.end_seconds)
        with self._write() as connection:
            here = update(captions).where(captions.c.id == caption_id).values(end_seconds=held)
            return bool(connection.execute(here).rowcount)

    def captioned_segments(self, video_id: str, model: str) -> set[int]:
        """Ids of the segments of a video that have a caption by this model."""
        query = select(captions.c.segment_id).where(captions.c.video_id == video_id, captions.c.model == model)
        with self._read() as connection:
            return set(connection.execute(query).scalars())

    def wordless_segments(self, video_id: str, model: str) -> set[int]:
        """Ids of the segments of a video that this model looked at and had no words for."""
        query = select(wordless.c.segment_id).join(segments, segments.c.id == wordless.c.segment_id)
        with self._read() as connection:
            return set(
                connection.execute(query.where(segments.c.video_id == video_id, wordless.c.model == model)).scalars()
            )

    def segments_with_tokens(self, segment_ids: Iterable[int]) -> set[int]:
        """Those of these segments of which a token set is kept."""
        found: set[int] = set()
        with self._read() as connection:
            for batch in batched(segment_ids):
                query = select(token_sets.c.segment_id).where(token_sets.c.segment_id.in_(batch))
                found |= set(connection.execute(query).scalars())
        return found


def _values(segment_id: int, caption: CaptionRecord) -> dict[str, Any]:
    return {
        "segment_id": segment_id,
        "video_id": caption.video_id,
        "model": caption.model,
        # No database takes NUL or lone surrogates, and a model may say anything.
        "text": caption.text.encode("utf-8", "replace").decode().replace("\x00", " "),
        "start_seconds": caption.span.start_seconds,
        "end_seconds": caption.span.end_seconds,
        "confidence": caption.confidence,
    }
