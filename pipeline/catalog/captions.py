"""Captions of segments: keeping them, and knowing what has some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, insert, select

from pipeline.catalog.base import CatalogPart, batched
from pipeline.catalog.models import captions, segments, token_sets
from pipeline.catalog.records import CaptionRecord
from pipeline.errors import LibraryError

__all__ = ["CaptionCatalog"]


class CaptionCatalog(CatalogPart):
    """Captions: keep them, find out where they are missing and what they can be made of."""

    def keep_captions(self, video_id: str, model: str, found: Mapping[int, CaptionRecord]) -> None:
        """Keep a caption for each of these segments of a video, in place of any that the same model gave before.

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
            for batch in batched(sorted(found)):
                there = connection.execute(
                    select(segments.c.id).where(segments.c.id.in_(batch), segments.c.video_id == video_id)
                ).scalars()
                if gone := sorted(set(batch) - set(there)):
                    raise LibraryError(
                        f"video {video_id} has no segment {gone[0]} any more: it was removed or indexed anew"
                    )
                connection.execute(delete(captions).where(captions.c.segment_id.in_(batch), captions.c.model == model))
                connection.execute(
                    insert(captions),
                    [
                        {
                            "segment_id": number,
                            "video_id": video_id,
                            "model": model,
                            "text": found[number].text,
                            "start_seconds": found[number].span.start_seconds,
                            "end_seconds": found[number].span.end_seconds,
                            "confidence": found[number].confidence,
                        }
                        for number in batch
                    ],
                )

    def captioned_segments(self, video_id: str, model: str) -> set[int]:
        """Ids of the segments of a video that have a caption by this model."""
        query = select(captions.c.segment_id).where(captions.c.video_id == video_id, captions.c.model == model)
        with self._read() as connection:
            return set(connection.execute(query).scalars())

    def segments_with_tokens(self, segment_ids: Iterable[int]) -> set[int]:
        """Those of these segments of which a token set is kept."""
        found: set[int] = set()
        with self._read() as connection:
            for batch in batched(segment_ids):
                query = select(token_sets.c.segment_id).where(token_sets.c.segment_id.in_(batch))
                found |= set(connection.execute(query).scalars())
        return found
