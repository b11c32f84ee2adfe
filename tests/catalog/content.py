"""Records as the pipeline would hand them to the catalog, drawn from a seed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.catalog import Catalog, PartRecord, video_id_for
from pipeline.catalog.records import CaptionRecord, CommittedWindow
from pipeline.live.types import LiveWindow
from pipeline.media import (
    Damage,
    MediaInfo,
    PartResult,
    SegmentRecord,
    Span,
    TokenRecord,
    VectorBlock,
    WatchSummary,
)

DIMENSION = 8


def media_info(uri: str, duration_seconds: float = 20.0) -> MediaInfo:
    return MediaInfo(
        uri=uri,
        container="mp4",
        codec="h264",
        width=398,
        height=224,
        rotation=90,
        sample_aspect_ratio=Fraction(4, 3),
        time_base=Fraction(1, 12800),
        start_pts=7,
        duration_seconds=duration_seconds,
        frame_count=500,
        average_fps=25.0,
        stream_index=0,
        video_streams=1,
        size_bytes=1234,
        notes=("drawn",),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def block(embedding: np.ndarray, start: float, seconds_each: float) -> VectorBlock:
    starts = start + seconds_each * np.arange(len(embedding), dtype=np.float64)
    weight = np.full(len(embedding), 2.0, dtype=np.float32)
    return VectorBlock(unit(embedding), starts, starts + seconds_each, weight)


def part_result(
    span: Span,
    *,
    seed: int = 0,
    segments: int = 2,
    vectors: int = 3,
    dimension: int = DIMENSION,
    embedding: np.ndarray | None = None,
    damage: Damage | None = None,
) -> PartResult:
    """A result with ``segments`` segments of ``vectors`` vectors each, which partition the span."""
    rng = np.random.default_rng(seed)
    if embedding is None:
        embedding = rng.standard_normal((segments * vectors, dimension))
    each = span.duration_seconds / (segments * vectors)
    records = []
    for i in range(segments):
        start = span.start_seconds + i * vectors * each
        records.append(
            SegmentRecord(
                index=i,
                span=Span(start, start + vectors * each),
                boundary="shot",
                vectors=block(embedding[i * vectors : (i + 1) * vectors], start, each),
                thumbnail_jpeg=b"jpeg" + bytes([seed % 256, i]),
                thumbnail_seconds=start,
                tokens=TokenRecord("ward", 4, 16, b"tokens" + bytes([seed % 256, i])),
            )
        )
    summary = WatchSummary(
        info=media_info("x"),
        decoder="decord",
        decoder_reason="a plain file",
        covered=span,
        frames_decoded=100,
        frames_sampled=40,
        frames_encoded=10,
        skipped_by_gate=30,
        damage=damage or Damage(),
    )
    return PartResult(tuple(records), summary, {"device": "cpu"})


def plan(
    catalog: Catalog,
    uri: str = "/videos/a.mp4",
    *,
    parts: int = 2,
    seconds: float = 10.0,
    fingerprint: str = "f1",
    recipe: str = "r1",
    tags: tuple[str, ...] = (),
) -> tuple[str, list[PartRecord]]:
    video = video_id_for(uri)
    spans = [Span(i * seconds, (i + 1) * seconds) for i in range(parts)]
    name = uri.rsplit("/", 1)[-1]
    info = media_info(uri, parts * seconds)
    return video, catalog.plan_video(video, uri, name, tags, None, fingerprint, recipe, info, spans)


def add(catalog: Catalog, uri: str = "/videos/a.mp4", *, seed: int = 0, vectors: int = 3, **options: object) -> str:
    """A whole video, planned, committed and finished."""
    video, parts = plan(catalog, uri, **options)  # type: ignore[arg-type]
    for part in parts:
        catalog.commit_part(part.id, part_result(part.span, seed=seed + part.index, vectors=vectors))
    catalog.finish_video(video)
    return video


def window(
    index: int,
    start: float,
    end: float,
    *,
    closed: bool = True,
    vectors: int = 2,
    sampled: int = 10,
    encoded: int = 4,
    payload: int = 6,
) -> LiveWindow:
    """A window of a stream with ``vectors`` vectors, and ``payload`` bytes each of picture and of tokens."""
    rng = np.random.default_rng(index)
    each = (end - start) / max(1, vectors)
    record = SegmentRecord(
        index=index,
        span=Span(start, end),
        boundary="limit",
        vectors=block(rng.standard_normal((vectors, DIMENSION)), start, each),
        thumbnail_jpeg=b"j" * payload,
        thumbnail_seconds=start,
        tokens=TokenRecord("ward", 1, 16, b"t" * payload),
    )
    return LiveWindow(index, record, closed, sampled, encoded, {"device": "cpu"})


def open_stream(catalog: Catalog, uri: str = "rtsp://cam/1", name: str = "gate") -> str:
    """A stream that this process watches; its video."""
    return catalog.open_stream(uri, name, (), "live", "r1", {"fps": 2}).video_id


def put_window(
    catalog: Catalog, video: str, index: int, start: float, end: float, *, replaces: str | None = None, **options: Any
) -> CommittedWindow:
    return catalog.commit_window(video, "live", "r1", window(index, start, end, **options), replaces)


def caption(video: str, text: str, start: float, end: float, model: str = "m") -> CaptionRecord:
    return CaptionRecord(video, model, text, Span(start, end), 0.5)
