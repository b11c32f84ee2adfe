"""What travels along a live stream: states, connections, blocks of looks, windows, captions.

Shapes: K looks (frames that are encoded), H x W pixels.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.media import MediaInfo, SegmentRecord, Span

__all__ = [
    "ClosedWindow",
    "Connection",
    "LiveBlock",
    "LiveCaption",
    "LiveState",
    "LiveWindow",
    "StreamCounts",
    "utc_at",
]

_MESSAGES = 20


class LiveState(str, enum.Enum):
    """Where a stream stands; the same words in the catalog, in JSON and on the terminal."""

    CONNECTING = "connecting"
    PLAYING = "playing"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (LiveState.ENDED, LiveState.FAILED)


@dataclass(frozen=True)
class Connection:
    """One unbroken stretch of a stream: the anchor of its media time in the wall clock.

    ``start_seconds`` is the media time of its first frame, ``utc`` (aware) the wall clock then. ``end_seconds`` and
    ``reason`` are known once it has ended. ``info`` is what the source said of itself.
    """

    number: int
    start_seconds: float
    utc: datetime
    end_seconds: float | None = None
    reason: str | None = None
    info: MediaInfo | None = None

    def __post_init__(self) -> None:
        if self.utc.tzinfo is None:
            raise ValueError(f"connection {self.number}: {self.utc.isoformat()} has no time zone")

    def utc_of(self, seconds: float) -> datetime:
        """The wall clock at a media time."""
        return self.utc + timedelta(seconds=seconds - self.start_seconds)


def utc_at(connections: Sequence[Connection], seconds: float) -> datetime | None:
    """The wall clock at a media time of a stream: by the last connection that began at or before it.

    Args:
        connections: in the order of their numbers, which is that of their starts.
    """
    begun = bisect_right(connections, seconds + 1e-6, key=lambda connection: connection.start_seconds)
    return connections[begun - 1].utc_of(seconds) if begun else None


@dataclass
class StreamCounts:
    """What became of a stream's frames since it was started. Nothing is left out in silence.

    ``frames_dropped`` were decoded and wanted, and fell out of the queue because the rest was behind;
    ``windows_skipped`` were not captioned for the same reason, or because of what ``messages`` say. ``gap_seconds`` is
    the time without a connection, ``seconds`` how far media time has come. ``caption_lag`` is how long after the end of
    a window its words are there, ``freshness`` how long after it happened a second is searchable: ``count``, ``mean``,
    ``p50`` and ``p95`` in seconds.
    """

    frames_received: int = 0
    frames_sampled: int = 0
    frames_encoded: int = 0
    skipped_by_gate: int = 0
    frames_dropped: int = 0
    corrupt_frames: int = 0
    decode_errors: int = 0
    connections: int = 0
    gap_seconds: float = 0.0
    windows: int = 0
    windows_skipped: int = 0
    captions: int = 0
    seconds: float = 0.0
    caption_lag: dict[str, Any] = field(default_factory=dict)
    freshness: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> StreamCounts:
        """Counts from JSON; what an older or newer version counted differently is left out."""
        return cls(**{entry.name: values[entry.name] for entry in fields(cls) if entry.name in values})

    def plus(self, other: StreamCounts) -> StreamCounts:
        """The sum of both; a stream's counts go on where its process was started anew. Of messages each is kept once,
        and the last ones only: a process may be started anew without end."""
        sums: dict[str, Any] = {}
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            sums[entry.name] = {**mine, **theirs} if isinstance(mine, dict) else mine + theirs
        sums["messages"] = list(dict.fromkeys(sums["messages"]))[-_MESSAGES:]
        return StreamCounts(**sums)


@dataclass(frozen=True)
class ClosedWindow:
    """Window ``index`` is complete: nothing of it comes after. ``boundary``: "shot", "limit", "gap" or "end".

    ``still``: nothing new was seen in it; its one look repeats what the window before showed.
    """

    index: int
    span: Span
    boundary: str
    still: bool = False


@dataclass(frozen=True)
class LiveBlock:
    """The next looks of a stream, in time order, and how far it has come.

    A look stands from its ``start_seconds`` to the start of the next one in its window, and the last one to
    ``until_seconds`` or the end of its window. ``extended`` is how many more sampled frames the last look of the
    block before has stood for.

    Attributes:
        images: ``[K, H, W, 3]`` uint8 RGB; K may be 0.
        start_seconds: ``[K]`` media time.
        weight: ``[K]`` sampled frames that each stands for so far.
        window: ``[K]`` index of each one's window.
        opened: number and start in seconds of the window that is open after this block, ``None`` where none is.
        closed: windows that are complete with this block.
        captured_utc: the wall clock at ``until_seconds``, ``None`` before the first frame.
    """

    images: npt.NDArray[np.uint8]
    start_seconds: npt.NDArray[np.float64]
    weight: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    until_seconds: float
    extended: int = 0
    opened: tuple[int, float] | None = None
    closed: tuple[ClosedWindow, ...] = ()
    captured_utc: datetime | None = None
    connections: tuple[Connection, ...] = ()
    state: LiveState = LiveState.CONNECTING
    reason: str = ""
    counts: StreamCounts = field(default_factory=StreamCounts)

    def __post_init__(self) -> None:
        counts = {len(self.images), len(self.start_seconds), len(self.weight), len(self.window)}
        if len(counts) != 1:
            raise ValueError(f"a block's arrays have {sorted(counts)} looks; they must agree")

    def __len__(self) -> int:
        return len(self.start_seconds)

    def without_looks(self) -> LiveBlock:
        """What else it tells."""
        none = slice(0, 0)
        return replace(
            self,
            images=self.images[none],
            start_seconds=self.start_seconds[none],
            weight=self.weight[none],
            window=self.window[none],
        )


@dataclass(frozen=True)
class LiveWindow:
    """A window as it is committed: provisional while it is open (``closed`` false), final afterwards.

    ``record.span`` is the window's so far; ``facts`` say what made the vectors.
    """

    index: int
    record: SegmentRecord
    closed: bool
    frames_sampled: int
    frames_encoded: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def span(self) -> Span:
        return self.record.span


@dataclass(frozen=True)
class LiveCaption:
    """Words for a window of a stream; ``extends``: the scene went on, the words before hold on to this span's end."""

    stream: str
    window: int
    span: Span
    text: str
    model: str
    confidence: float | None
    utc: datetime | None
    extends: bool = False
    lag_seconds: float | None = None
