"""Committing a part: everything that it found in one transaction, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, literal, select, update

from pipeline.catalog.base import CatalogPart, batched, bump_seq, utc_now
from pipeline.catalog.ids import segment_id_for, vector_id_for
from pipeline.catalog.models import counters, parts, removals, segments, thumbnails, token_sets, vectors
from pipeline.catalog.records import PartRecord
from pipeline.errors import LibraryError
from pipeline.media import PartResult, SegmentRecord, Span

__all__ = ["PartCatalog", "delete_parts", "insert_segments", "part_record", "part_rows"]

_TRIM_EVERY = 10_000  # changes
_KEPT_REMOVALS = 20_000


class PartCatalog(CatalogPart):
    """Parts: commit and fail."""

    dimension: int | None

    def commit_part(self, part_id: str, result: PartResult) -> bool:
        """Keep what a part found: segments, vectors, token sets, thumbnails and statistics, all or nothing.

        The first part of a new version of a video takes the old version's content away in the same transaction.

        Returns:
            False when the part was done already; then nothing changes.

        Raises:
            LibraryError: the part is not planned (its video was removed, or has another version by now), or a vector
                has another width than the library's or is not finite.
        """
        self._check(f"part {part_id}", result.segments)
        summary = result.summary
        with self._write() as connection:
            part = connection.execute(select(parts).where(parts.c.id == part_id)).one_or_none()
            if part is None or part.superseded:
                raise LibraryError(f"part {part_id} is not planned: its video was removed or has changed since")
            if part.state == "done":
                return False
            delete_parts(connection, (parts.c.video_id == part.video_id) & parts.c.superseded)
            size = insert_segments(connection, part.video_id, part_id, result.segments)
            connection.execute(
                update(parts)
                .where(parts.c.id == part_id)
                .values(
                    state="done",
                    decoder=summary.decoder,
                    decoder_reason=summary.decoder_reason,
                    covered_start_seconds=summary.covered.start_seconds if summary.covered else None,
                    covered_end_seconds=summary.covered.end_seconds if summary.covered else None,
                    frames_decoded=summary.frames_decoded,
                    frames_sampled=summary.frames_sampled,
                    frames_encoded=summary.frames_encoded,
                    skipped_by_gate=summary.skipped_by_gate,
                    corrupt_frames=summary.damage.corrupt_frames,
                    decode_errors=summary.damage.decode_errors,
                    lost_seconds=summary.damage.lost_seconds,
                    damage=list(summary.damage.messages),
                    facts=dict(result.facts),
                    bytes=size,
                    error_type=None,
                    error_message=None,
                    committed_at=utc_now(),
                )
            )
            return True

    def fail_part(self, part_id: str, error: BaseException) -> None:
        """Mark a part as failed, with its reason; one that is done stays done.

        Raises:
            LibraryError: the part is not planned.
        """
        with self._write() as connection:
            known = connection.execute(select(parts.c.state).where(parts.c.id == part_id)).scalar()
            if known is None:
                raise LibraryError(f"part {part_id} is not planned: its video was removed or has changed since")
            if known != "done":
                connection.execute(
                    update(parts)
                    .where(parts.c.id == part_id)
                    .values(state="failed", error_type=type(error).__name__, error_message=str(error))
                )

    def _check(self, what: str, records: Sequence[SegmentRecord]) -> None:
        for segment in records:
            embedding = segment.vectors.embedding
            if self.dimension is not None and len(embedding) and embedding.shape[1] != self.dimension:
                raise LibraryError(
                    f"{what}, segment {segment.index}: vectors of width {embedding.shape[1]}, "
                    f"this library's have {self.dimension}"
                )
            if not np.isfinite(embedding).all():
                raise LibraryError(f"{what}, segment {segment.index}: a vector is not finite")


def insert_segments(connection: Connection, video_id: str, part_id: str, records: Sequence[SegmentRecord]) -> int:
    """Insert segments with all that is kept of them; returns how many bytes their pictures, token sets and vectors
    have."""
    seq = bump_seq(connection, sum(len(record.vectors) for record in records))
    rows: dict[Any, list[dict[str, Any]]] = {segments: [], vectors: [], thumbnails: [], token_sets: []}
    for record in records:
        segment_id = segment_id_for(part_id, record.index)
        rows[segments].append(
            {
                "id": segment_id,
                "video_id": video_id,
                "part_id": part_id,
                "number": record.index,
                "start_seconds": record.span.start_seconds,
                "end_seconds": record.span.end_seconds,
                "boundary": record.boundary,
            }
        )
        block = record.vectors
        for i in range(len(block)):
            rows[vectors].append(
                {
                    "seq": seq,
                    "id": vector_id_for(part_id, record.index, i),
                    "video_id": video_id,
                    "segment_id": segment_id,
                    "start_seconds": float(block.start_seconds[i]),
                    "end_seconds": float(block.end_seconds[i]),
                    "weight": float(block.weight[i]),
                    "embedding": block.embedding[i].astype("<f2", copy=False).tobytes(),
                }
            )
            seq += 1
        if record.thumbnail_jpeg is not None:
            seconds = record.thumbnail_seconds
            rows[thumbnails].append(
                {
                    "segment_id": segment_id,
                    "seconds": record.span.start_seconds if seconds is None else seconds,
                    "jpeg": record.thumbnail_jpeg,
                }
            )
        if record.tokens is not None:
            rows[token_sets].append(
                {
                    "segment_id": segment_id,
                    "compressor": record.tokens.compressor,
                    "count": record.tokens.count,
                    "width": record.tokens.width,
                    "payload": record.tokens.payload,
                }
            )
    for table, values in rows.items():
        for batch in batched(values):
            connection.execute(insert(table), list(batch))
    payloads = ((vectors, "embedding"), (thumbnails, "jpeg"), (token_sets, "payload"))
    return sum(len(row[name]) for table, name in payloads for row in rows[table])


def delete_parts(connection: Connection, which: ColumnElement[bool]) -> None:
    """Delete parts with all their content, and write down which vectors went, for the index to follow."""
    ids = select(parts.c.id).where(which)
    gone = vectors.c.segment_id.in_(select(segments.c.id).where(segments.c.part_id.in_(ids)))
    if connection.execute(select(func.count()).select_from(vectors).where(gone)).scalar_one():
        last = connection.execute(select(func.max(removals.c.seq))).scalar() or 0
        seq = bump_seq(connection, 1)
        if seq // _TRIM_EVERY > last // _TRIM_EVERY:
            _trim_removals(connection)
        connection.execute(
            insert(removals).from_select(["seq", "vector_id"], select(literal(seq), vectors.c.id).where(gone))
        )
    connection.execute(delete(parts).where(which))  # the rest goes by cascade


def _trim_removals(connection: Connection) -> None:
    """Forget removals so old that whoever has not followed them yet is better off reading all vectors anew: a live
    stream replaces and prunes for ever. ``removals_floor`` says up to which change they may be missing."""
    kept = max(_KEPT_REMOVALS, int(connection.execute(select(func.count(vectors.c.seq))).scalar_one()))
    oldest = select(removals.c.seq).order_by(removals.c.seq.desc(), removals.c.vector_id.desc()).offset(kept).limit(1)
    floor = connection.execute(oldest).scalar()
    if floor is not None:
        connection.execute(delete(removals).where(removals.c.seq <= floor))
        connection.execute(update(counters).where(counters.c.name == "removals_floor").values(value=floor))


def part_rows(connection: Connection, video_id: str) -> Sequence[Row[Any]]:
    """The parts of the version that was planned last, in time order."""
    return connection.execute(
        select(parts)
        .where(parts.c.video_id == video_id, ~parts.c.superseded)
        .order_by(parts.c.start_seconds, parts.c.id)
    ).all()


def part_record(row: Row[Any]) -> PartRecord:
    covered = None
    if row.covered_start_seconds is not None and row.covered_end_seconds is not None:
        covered = Span(row.covered_start_seconds, row.covered_end_seconds)
    return PartRecord(
        id=row.id,
        video_id=row.video_id,
        index=row.number,
        span=Span(row.start_seconds, row.end_seconds),
        state=row.state,
        covered=covered,
        facts=dict(row.facts),
        error_type=row.error_type,
        error_message=row.error_message,
        committed_at=row.committed_at,
    )
