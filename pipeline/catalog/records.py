"""What the catalog gives out: plain frozen values, never rows of the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.live.types import LiveState
from pipeline.media import MediaInfo, Span

__all__ = [
    "ITEM_STATES",
    "JOB_STATES",
    "VIDEO_STATES",
    "CaptionHit",
    "CaptionRecord",
    "CommittedWindow",
    "ErrorRecord",
    "ItemRecord",
    "JobRecord",
    "PartRecord",
    "Pruned",
    "SegmentRow",
    "StreamRecord",
    "VectorRows",
    "VideoRecord",
    "media_from_json",
    "media_to_json",
]

VIDEO_STATES = ("pending", "done", "failed", "live")
JOB_STATES = ("queued", "running", "finished", "cancelled", "interrupted", "failed")
ITEM_STATES = ("pending", "done", "failed", "skipped", "cancelled")


@dataclass(frozen=True)
class VideoRecord:
    """One video known to the library.

    ``fingerprint`` and ``recipe_key`` name the version that was planned last (``None`` before any was);
    ``damage`` holds messages on what was lost; ``segments`` and ``vectors`` count what is searchable now.
    """

    id: str
    uri: str
    name: str
    tags: tuple[str, ...]
    fingerprint: str | None
    recipe_key: str | None
    media: MediaInfo | None
    start_time: datetime | None
    duration_seconds: float | None
    state: str
    decoder: str | None
    decoder_reason: str | None
    frames_decoded: int
    frames_sampled: int
    frames_encoded: int
    skipped_by_gate: int
    corrupt_frames: int
    decode_errors: int
    lost_seconds: float
    damage: tuple[str, ...]
    error_type: str | None
    error_message: str | None
    added_at: datetime
    updated_at: datetime
    segments: int
    vectors: int

    def done_fingerprint(self, recipe_key: str) -> str | None:
        """The fingerprint of the content that is all there, made with this very recipe; None when it is not."""
        return self.fingerprint if self.state == "done" and self.recipe_key == recipe_key else None

    def is_done(self, fingerprint: str, recipe_key: str) -> bool:
        """Whether this very content, made with this very recipe, is all there."""
        return self.state == "done" and self.fingerprint == fingerprint and self.recipe_key == recipe_key


@dataclass(frozen=True)
class PartRecord:
    """A time range of a video: the unit that is committed whole or not at all."""

    id: str
    video_id: str
    index: int
    span: Span
    state: str
    covered: Span | None
    facts: dict[str, Any]
    error_type: str | None
    error_message: str | None
    committed_at: datetime | None


@dataclass(frozen=True)
class SegmentRow:
    """One segment as listed: its id, its place and why it ended."""

    id: int
    video_id: str
    part_id: str
    index: int
    span: Span
    boundary: str


@dataclass(frozen=True)
class CaptionRecord:
    """Words for a span of a video, and the model that found them."""

    video_id: str
    model: str
    text: str
    span: Span
    confidence: float | None


@dataclass(frozen=True)
class CaptionHit:
    """A caption that has words asked for. ``score`` is comparable among hits of the same words only; more is better."""

    id: int
    segment_id: int
    caption: CaptionRecord
    score: float


@dataclass(frozen=True)
class StreamRecord:
    """A live stream, running or over: a video that goes on.

    ``counts`` are those since ``started_at``, as its watcher tells them. What is needed to go on with it:
    ``resume_seconds`` is the media time that is covered so far, ``first_utc`` the wall clock at media time 0 (``None``
    before the first frame), ``next_connection`` and ``next_window`` are the numbers of those that come next.
    """

    video_id: str
    uri: str
    name: str
    state: LiveState
    options: dict[str, Any]
    counts: dict[str, Any]
    pid: int
    host: str
    stop_requested: bool
    started_at: datetime
    heartbeat_at: datetime
    ended_at: datetime | None
    error_type: str | None
    error_message: str | None
    resume_seconds: float
    next_connection: int
    next_window: int
    first_utc: datetime | None
    bytes: int


@dataclass(frozen=True)
class CommittedWindow:
    """Where a window of a stream went: its part, and its one segment."""

    part_id: str
    segment_id: int


@dataclass(frozen=True)
class Pruned:
    """What retention took from a stream: windows, their bytes, and the media time before which nothing is left."""

    windows: int
    bytes: int
    until_seconds: float | None


@dataclass(frozen=True)
class VectorRows:
    """Vectors in columns: ``seq``, ``id`` int64 [V]; ``embedding`` float16 [V, D]; spans and ``weight`` float64 [V].

    ``video`` and ``segment`` say where each belongs (lists of length V).
    """

    seq: npt.NDArray[np.int64]
    id: npt.NDArray[np.int64]
    embedding: npt.NDArray[np.float16]
    start_seconds: npt.NDArray[np.float64]
    end_seconds: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    video: list[str] = field(default_factory=list)
    segment: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        lengths = {
            len(a) for a in (self.seq, self.id, self.embedding, self.start_seconds, self.end_seconds, self.weight)
        }
        lengths |= {len(self.video), len(self.segment)}
        if len(lengths) != 1:
            raise ValueError(f"the columns of vector rows must agree in length, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class JobRecord:
    """A job: a list of videos and a configuration. ``counts`` maps item state to number."""

    id: str
    state: str
    config: dict[str, Any]
    command: str
    pid: int | None
    host: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    counts: dict[str, int]


@dataclass(frozen=True)
class ItemRecord:
    """One video of a job; ``numbers`` are those of the JSON contract (durations, counts, seconds lost)."""

    job_id: str
    uri: str
    index: int
    video_id: str | None
    name: str | None
    state: str
    error_type: str | None
    error_message: str | None
    numbers: dict[str, Any]
    updated_at: datetime


@dataclass(frozen=True)
class ErrorRecord:
    """Something that went wrong, when and where: ``at_seconds`` is media time where it is known."""

    job_id: str | None
    video_id: str | None
    uri: str | None
    type: str
    message: str
    at_seconds: float | None
    happened_at: datetime


def media_to_json(info: MediaInfo) -> dict[str, Any]:
    """The facts as JSON values; fractions become ``"numerator/denominator"``."""
    values = dict(vars(info))
    values["sample_aspect_ratio"] = str(info.sample_aspect_ratio)
    values["time_base"] = str(info.time_base)
    values["notes"] = list(info.notes)
    return values


def media_from_json(values: dict[str, Any]) -> MediaInfo:
    """The inverse of :func:`media_to_json`."""
    return MediaInfo(
        **{
            **values,
            "sample_aspect_ratio": Fraction(values["sample_aspect_ratio"]),
            "time_base": Fraction(values["time_base"]),
            "notes": tuple(values["notes"]),
        }
    )
