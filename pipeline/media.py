"""What passes along the edges of the pipeline: one small, checked type per edge.

Time: a frame carries its presentation time as an integer ``pts`` in units of ``time_base`` (a ``Fraction``), already
less the stream's first PTS. ``*_seconds`` floats are derived. Every span is half-open ``[start_seconds, end_seconds)``.

Shapes: T frames, H x W pixels, V vectors, D width of the joint space, m merged tokens, d width of a patch token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Block",
    "ClosedSegment",
    "Damage",
    "Frame",
    "MediaInfo",
    "PartResult",
    "SegmentRecord",
    "Span",
    "TokenRecord",
    "VectorBlock",
    "WatchSummary",
    "to_seconds",
]


def to_seconds(pts: int, time_base: Fraction) -> float:
    """``float(pts * time_base)``, rounded once as well, without making a fraction: it is asked for often."""
    return pts * time_base.numerator / time_base.denominator


@dataclass(frozen=True, order=True)
class Span:
    """Half-open ``[start_seconds, end_seconds)``, longer than zero.

    Raises:
        ValueError: when the end does not lie after the start, or either is not finite.
    """

    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start_seconds) and np.isfinite(self.end_seconds)):
            raise ValueError(f"span [{self.start_seconds}, {self.end_seconds}) is not finite")
        if not self.end_seconds > self.start_seconds:
            raise ValueError(f"span [{self.start_seconds}, {self.end_seconds}) must end after it starts")

    @property
    def duration_seconds(self) -> float:
        return self.end_seconds - self.start_seconds

    def contains(self, seconds: float) -> bool:
        return self.start_seconds <= seconds < self.end_seconds

    def overlaps(self, other: Span) -> bool:
        return self.start_seconds < other.end_seconds and other.start_seconds < self.end_seconds


@dataclass(frozen=True)
class Frame:
    """A decoded picture ``[H, W, 3]`` (uint8 RGB, upright, display aspect) with its presentation time.

    ``duration`` is how long it is shown, in ``time_base`` units; at least 1.
    """

    image: npt.NDArray[np.uint8]
    pts: int
    duration: int
    time_base: Fraction
    keyframe: bool = False
    corrupt: bool = False

    @property
    def pts_seconds(self) -> float:
        return to_seconds(self.pts, self.time_base)

    @property
    def end_seconds(self) -> float:
        return to_seconds(self.pts + self.duration, self.time_base)

    def small(self, short_side: int) -> npt.NDArray[np.uint8]:
        """The picture ``[h, w, 3]`` scaled so that its short side has ``short_side`` pixels, for a quick look."""
        import cv2

        height, width = self.image.shape[:2]
        scale = short_side / min(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@dataclass(frozen=True)
class MediaInfo:
    """Facts about a source, as its container states them; ``None`` where it does not say.

    ``width`` and ``height`` are as displayed (rotation and pixel aspect applied). ``duration_seconds`` is that of the
    video stream, not of the container.
    """

    uri: str
    container: str
    codec: str
    width: int
    height: int
    rotation: int
    sample_aspect_ratio: Fraction
    time_base: Fraction
    start_pts: int
    duration_seconds: float | None
    frame_count: int | None
    average_fps: float | None
    stream_index: int
    video_streams: int
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass
class Damage:
    """What a source lost on the way: counted, never silent."""

    corrupt_frames: int = 0
    decode_errors: int = 0
    lost_seconds: float = 0.0
    messages: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        """Keep a message once; at most 20, so that a file broken everywhere does not fill the catalog."""
        if message not in self.messages and len(self.messages) < 20:
            self.messages.append(message)


@dataclass(frozen=True)
class ClosedSegment:
    """A finished segment of a part: its number there, its span, and why it ended."""

    index: int
    span: Span
    boundary: str  # "shot", "limit", "part" or "end"


@dataclass(frozen=True)
class Block:
    """Frames that passed the gate, from the decode side to the encode side, in time order.

    ``images [T, H, W, 3]`` uint8; ``pts_seconds [T]`` when each was shown; ``start_seconds``, ``end_seconds`` and
    ``weight [T]`` what each stands for (the look-alikes that the gate skipped included); ``segment [T]`` its segment's
    number. ``closed`` lists the segments of which no further frame will come.
    """

    images: npt.NDArray[np.uint8]
    pts_seconds: npt.NDArray[np.float64]
    start_seconds: npt.NDArray[np.float64]
    end_seconds: npt.NDArray[np.float64]
    weight: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    closed: tuple[ClosedSegment, ...] = ()

    def __post_init__(self) -> None:
        lengths = {
            len(a)
            for a in (self.images, self.pts_seconds, self.start_seconds, self.end_seconds, self.weight, self.segment)
        }
        if len(lengths) != 1:
            raise ValueError(f"a block's arrays must agree in length, got {sorted(lengths)}")
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 [T, H, W, 3], got {self.images.dtype} {self.images.shape}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class WatchSummary:
    """What the decode side saw of a part: the last thing that it sends."""

    info: MediaInfo
    decoder: str
    decoder_reason: str
    covered: Span | None  # from the part's first frame (0 in the first part) to the end of its last one
    frames_decoded: int = 0
    frames_sampled: int = 0
    frames_encoded: int = 0
    skipped_by_gate: int = 0
    damage: Damage = field(default_factory=Damage)


@dataclass(frozen=True)
class VectorBlock:
    """Fused vectors of a segment: ``embedding [V, D]`` float16 of unit length, each with its own span and weight."""

    embedding: npt.NDArray[np.float16]
    start_seconds: npt.NDArray[np.float64]
    end_seconds: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.embedding)
        if not (len(self.start_seconds) == len(self.end_seconds) == len(self.weight) == n):
            raise ValueError("embedding, start_seconds, end_seconds and weight must agree in length")
        if self.embedding.ndim != 2 or self.embedding.dtype != np.float16:
            raise ValueError(f"embedding must be float16 [V, D], got {self.embedding.dtype} {self.embedding.shape}")

    def __len__(self) -> int:
        return len(self.embedding)


@dataclass(frozen=True)
class TokenRecord:
    """A segment's token set as kept in the catalog: safetensors bytes (see ``csat_fusion.TokenSet``) and how it was
    made.
    """

    compressor: str
    count: int
    width: int
    payload: bytes


@dataclass(frozen=True)
class SegmentRecord:
    """One segment with everything that is kept of it."""

    index: int
    span: Span
    boundary: str
    vectors: VectorBlock
    thumbnail_jpeg: bytes | None = None
    thumbnail_seconds: float | None = None
    tokens: TokenRecord | None = None


@dataclass(frozen=True)
class PartResult:
    """Everything that one transaction commits for a part."""

    segments: tuple[SegmentRecord, ...]
    summary: WatchSummary
    facts: dict[str, Any] = field(default_factory=dict)  # precision, device, batch: what made the vectors
