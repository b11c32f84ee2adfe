"""Cuts the decoded frames into segments: shots, split when they are long. The time between them is never lost.

Shot boundaries come from PySceneDetect's detectors (https://scenedetect.com), fed with every decoded frame, small, with
its own presentation time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.errors import OptionError
from pipeline.media import ClosedSegment, Frame, Span

__all__ = ["SHOT_DETECTORS", "SegmentOptions", "Segmenter", "ShotDetector"]

_HEIGHT = 72  # pixels: boundaries of the measured edits are found as well at 72 as at 224, in a quarter of the time


@dataclass(frozen=True)
class SegmentOptions:
    """``detector``: "content", "adaptive" (for shaky cameras) or "none"; ``threshold`` 0 takes the detector's own.

    Shots shorter than ``min_seconds`` are joined to the one before; longer than ``max_seconds`` are split there.
    """

    detector: str = "content"
    threshold: float = 0.0
    min_seconds: float = 0.6
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.detector not in SHOT_DETECTORS:
            raise OptionError(f"segments.detector is {self.detector!r}; allowed: {', '.join(SHOT_DETECTORS)}")
        if not (math.isfinite(self.threshold) and self.threshold >= 0):
            raise OptionError(f"segments.threshold is {self.threshold}; allowed: 0 (the detector's own) or more")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise OptionError(
                f"segments.min_seconds is {self.min_seconds} and max_seconds {self.max_seconds}; "
                "allowed: 0 <= min_seconds < max_seconds"
            )


def _content(options: SegmentOptions) -> Any:
    from scenedetect.detectors import ContentDetector

    return ContentDetector(threshold=options.threshold or 27.0, min_scene_len=0)


def _adaptive(options: SegmentOptions) -> Any:
    from scenedetect.detectors import AdaptiveDetector

    return AdaptiveDetector(adaptive_threshold=options.threshold or 3.0, min_scene_len=0)


SHOT_DETECTORS: dict[str, Callable[[SegmentOptions], Any] | None] = {
    "content": _content,
    "adaptive": _adaptive,
    "none": None,
}


class ShotDetector:
    """Finds the first frame of each new shot. ``lag`` is how many frames later it may say so."""

    def __init__(self, options: SegmentOptions, average_fps: float | None) -> None:
        make = SHOT_DETECTORS[options.detector]
        self._detector = make(options) if make else None
        self._rate = Fraction(average_fps or 25.0).limit_denominator(100_000)
        self._min_seconds = options.min_seconds
        self._last_seconds: float | None = None  # where the shot began that goes on
        self.lag: int = self._detector.event_buffer_length if self._detector else 0

    def push(self, frame: Frame) -> list[int]:
        """Take the next decoded frame; the ``pts`` of the first frames of new shots that are now known."""
        if self._detector is None:
            return []
        import cv2
        from scenedetect.common import FrameTimecode, Timecode

        small = cv2.cvtColor(frame.small(_HEIGHT), cv2.COLOR_RGB2BGR)
        when = FrameTimecode(Timecode(frame.pts, frame.time_base), fps=self._rate)
        if self._last_seconds is None:
            self._last_seconds = frame.pts_seconds
        found = []
        for cut in self._detector.process_frame(when, small):
            # Our own rule for shots that are too short: PySceneDetect's would report a cut late, and move it.
            if cut.seconds - self._last_seconds >= self._min_seconds - 1e-6:  # times on paper, rounded
                self._last_seconds = cut.seconds
                found.append(round(Fraction(cut.pts) * Fraction(cut.time_base) / frame.time_base))
        return found


class Segmenter:
    """Turns settled frames and cuts into segments that partition ``[start_seconds, end of the part)``."""

    def __init__(self, options: SegmentOptions, start_seconds: float) -> None:
        self._options = options
        self._start_seconds = start_seconds
        self.index = 0

    def advance(self, seconds: float, is_cut: bool) -> list[ClosedSegment]:
        """Move to a frame shown at ``seconds``; the segments that end before it, in order."""
        closed = []
        limit = self._start_seconds + self._options.max_seconds
        while seconds >= limit:
            # A frame that starts a shot right at the limit ends the segment once, as a shot boundary.
            boundary = "shot" if is_cut and seconds == limit else "limit"
            closed.append(self._close(limit, boundary))
            limit = self._start_seconds + self._options.max_seconds
        if is_cut and seconds > self._start_seconds:
            closed.append(self._close(seconds, "shot"))
        return closed

    def finish(self, end_seconds: float, boundary: str) -> list[ClosedSegment]:
        """End at ``end_seconds`` (``boundary``: "part" or "end"); the segments that were still open."""
        closed = []
        while end_seconds - self._start_seconds > self._options.max_seconds:
            closed.append(self._close(self._start_seconds + self._options.max_seconds, "limit"))
        if end_seconds > self._start_seconds:
            closed.append(self._close(end_seconds, boundary))
        return closed

    def _close(self, end_seconds: float, boundary: str) -> ClosedSegment:
        segment = ClosedSegment(self.index, Span(self._start_seconds, end_seconds), boundary)
        self.index += 1
        self._start_seconds = end_seconds
        return segment
