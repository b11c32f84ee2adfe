"""Reading what was committed: vectors for the index and for search, segments, captions, thumbnails, token sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Row, func, select

from pipeline.catalog.base import CatalogPart, batched, current_seq
from pipeline.catalog.filtering import filtered, places
from pipeline.catalog.filters import Filter
from pipeline.catalog.models import captions, counters, removals, segments, thumbnails, token_sets, vectors
from pipeline.catalog.records import CaptionRecord, SegmentRow, VectorRows
from pipeline.media import Span, TokenRecord

__all__ = ["VectorCatalog"]


class VectorCatalog(CatalogPart):
    """Vectors and the other content of segments."""

    dimension: int | None

    # -- following -------------------------------------------------------------------------------------------------

    def current_seq(self) -> int:
        """The last change number given: 0 for a library to which nothing ever happened."""
        with self._read() as connection:
            return current_seq(connection)

    def vectors_since(self, seq: int, limit: int, until: int | None = None) -> VectorRows:
        """The vectors that are there now and came after change ``seq`` (and not after ``until``), in that order."""
        query = select(vectors).where(vectors.c.seq > seq)
        if until is not None:
            query = query.where(vectors.c.seq <= until)
        with self._read() as connection:
            rows = connection.execute(query.order_by(vectors.c.seq).limit(limit)).all()
        return self._columns(rows)

    def removals_since(self, seq: int) -> npt.NDArray[np.int64]:
        """Ids [R] of vectors removed after change ``seq``. One that came back since is among :meth:`vectors_since`."""
        with self._read() as connection:
            query = select(removals.c.vector_id).where(removals.c.seq > seq).order_by(removals.c.seq)
            return np.array(connection.execute(query).scalars().all(), dtype=np.int64)

    def removals_floor(self) -> int:
        """Up to this change removals are forgotten: whoever has followed less reads all vectors anew."""
        query = select(counters.c.value).where(counters.c.name == "removals_floor")
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def count_vectors(self) -> int:
        with self._read() as connection:
            return int(connection.execute(select(func.count(vectors.c.seq))).scalar_one())

    def sample_vectors(self, count: int) -> npt.NDArray[np.float16]:
        """At most ``count`` embeddings [N, D], spread evenly over the library; the same ones each time."""
        return self._embeddings([row.embedding for row in self._sample(count, vectors.c.embedding)])

    def sample_rows(self, count: int) -> VectorRows:
        """As :meth:`sample_vectors`, with all that is known of each vector."""
        return self._columns(self._sample(count, vectors))

    def _sample(self, count: int, *columns: Any) -> list[Row[Any]]:
        if count < 1:
            return []
        with self._read() as connection:
            total = int(connection.execute(select(func.count(vectors.c.seq))).scalar_one())
            query = select(*columns).order_by(vectors.c.seq)
            if total <= count:
                return list(connection.execute(query))
            keys = connection.execute(select(vectors.c.seq).order_by(vectors.c.seq)).scalars().all()
            keys = [keys[i * len(keys) // count] for i in range(count)]
            found: list[Row[Any]] = []
            for batch in batched(keys):
                found.extend(connection.execute(query.where(vectors.c.seq.in_(batch))))
            return found

    # -- finding ---------------------------------------------------------------------------------------------------

    def vectors_of(self, video_id: str, span: Span | None = None) -> VectorRows:
        """The vectors of a video, or those that overlap a span of it, in time order."""
        condition: ColumnElement[bool] = vectors.c.video_id == video_id
        if span is not None:
            condition &= (vectors.c.start_seconds < span.end_seconds) & (vectors.c.end_seconds > span.start_seconds)
        with self._read() as connection:
            rows = connection.execute(
                select(vectors).where(condition).order_by(vectors.c.start_seconds, vectors.c.seq)
            ).all()
        return self._columns(rows)

    def vectors_by_id(self, ids: Iterable[int]) -> VectorRows:
        """The vectors of these ids, in no particular order; ids that are gone are left out."""
        found: list[Row[Any]] = []
        with self._read() as connection:
            for batch in batched(int(one) for one in ids):
                found.extend(connection.execute(select(vectors).where(vectors.c.id.in_(batch))))
        return self._columns(found)

    def count_matching(self, where: Filter) -> int:
        """How many vectors a filter lets through."""
        with self._read() as connection:
            query = filtered(connection, select(func.count(vectors.c.seq)), vectors, where)
            return int(connection.execute(query).scalar_one())

    def ids_matching(self, where: Filter) -> npt.NDArray[np.int64]:
        """Ids [N] of the vectors that a filter lets through; those that overlap its range of time are."""
        with self._read() as connection:
            query = filtered(connection, select(vectors.c.id), vectors, where)
            found = connection.execute(query).scalars().all()
        return np.array(found, dtype=np.int64)

    def ids_of_video(self, video_id: str) -> npt.NDArray[np.int64]:
        """Ids [N] of all vectors of a video."""
        return self.ids_matching(Filter(video_id=video_id))

    def ids_and_embeddings_matching(self, where: Filter) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        """As :meth:`ids_matching`, with the embeddings [N, D]."""
        with self._read() as connection:
            query = filtered(connection, select(vectors.c.id, vectors.c.embedding), vectors, where)
            rows = connection.execute(query).all()
        return np.array([row.id for row in rows], dtype=np.int64), self._embeddings([row.embedding for row in rows])

    def places(self, where: Filter, video_ids: Sequence[str]) -> dict[str, list[Span]] | None:
        """Where in these videos a filter looks, as spans of media time in order: an answer is cut to them. ``None``
        when it does not look at times; videos that are left out altogether have none."""
        with self._read() as connection:
            return places(connection, where, video_ids)

    # -- other content of segments -----------------------------------------------------------------------------------

    def segments_of(self, video_id: str) -> list[SegmentRow]:
        """The segments of a video in time order."""
        query = select(segments).where(segments.c.video_id == video_id)
        with self._read() as connection:
            rows = connection.execute(query.order_by(segments.c.start_seconds, segments.c.id)).all()
        return [
            SegmentRow(
                row.id, row.video_id, row.part_id, row.number, Span(row.start_seconds, row.end_seconds), row.boundary
            )
            for row in rows
        ]

    def captions_of(self, video_id: str, span: Span | None = None) -> list[CaptionRecord]:
        """The captions of a video, or those that overlap a span of it, in time order."""
        query = select(captions).where(captions.c.video_id == video_id)
        if span is not None:
            query = query.where(
                captions.c.start_seconds < span.end_seconds, captions.c.end_seconds > span.start_seconds
            )
        with self._read() as connection:
            rows = connection.execute(query.order_by(captions.c.start_seconds, captions.c.id)).all()
        return [
            CaptionRecord(row.video_id, row.model, row.text, Span(row.start_seconds, row.end_seconds), row.confidence)
            for row in rows
        ]

    def thumbnail(self, video_id: str, seconds: float) -> bytes | None:
        """The JPEG of the segment at this media time, or of the nearest with a picture; ``None`` without any."""
        distance = func.abs(thumbnails.c.seconds - seconds)
        inside = (segments.c.start_seconds <= seconds) & (segments.c.end_seconds > seconds)
        query = (
            select(thumbnails.c.jpeg)
            .join(segments, segments.c.id == thumbnails.c.segment_id)
            .where(segments.c.video_id == video_id)
            .order_by(inside.desc(), distance)
            .limit(1)
        )
        with self._read() as connection:
            found: bytes | None = connection.execute(query).scalar_one_or_none()
            return found

    def token_set(self, segment_id: int) -> TokenRecord | None:
        """The token set kept of a segment, if any was."""
        with self._read() as connection:
            row = connection.execute(
                select(token_sets.c.compressor, token_sets.c.count, token_sets.c.width, token_sets.c.payload).where(
                    token_sets.c.segment_id == segment_id
                )
            ).one_or_none()
        return None if row is None else TokenRecord(**row._mapping)

    # -- columns -----------------------------------------------------------------------------------------------------

    def _embeddings(self, blobs: Sequence[bytes]) -> npt.NDArray[np.float16]:
        if not blobs:
            return np.zeros((0, self.dimension or 0), dtype=np.float16)
        return np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), -1).astype(np.float16, copy=False)

    def _columns(self, rows: Sequence[Row[Any]]) -> VectorRows:
        return VectorRows(
            seq=np.array([row.seq for row in rows], dtype=np.int64),
            id=np.array([row.id for row in rows], dtype=np.int64),
            embedding=self._embeddings([row.embedding for row in rows]),
            start_seconds=np.array([row.start_seconds for row in rows], dtype=np.float64),
            end_seconds=np.array([row.end_seconds for row in rows], dtype=np.float64),
            weight=np.array([row.weight for row in rows], dtype=np.float64),
            video=[row.video_id for row in rows],
            segment=[row.segment_id for row in rows],
        )
