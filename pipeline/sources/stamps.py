"""Presentation times made whole: missing, repeated and backward time stamps, and the accounts of what was lost."""

from __future__ import annotations

import heapq
from fractions import Fraction

from pipeline.media import Damage, MediaInfo, Span, to_seconds

__all__ = ["LossAccount", "Stamper"]

_BACKWARD_SECONDS = 1.0  # a step back by more than this is a restart of the clock, not disorder


class Stamper:
    """Turns raw frame time stamps into strictly increasing ``pts`` counted from the stream's first PTS.

    A missing stamp is the last one plus the last frame's length; a repeated or slightly earlier one is moved one unit
    past the last; a clock that restarts goes on from where it was. Each repair is noted in ``damage`` once.
    """

    def __init__(self, info: MediaInfo, damage: Damage) -> None:
        self._start = info.start_pts
        self._time_base = info.time_base
        rate = info.average_fps
        self.average = max(1, round(1 / (rate * float(info.time_base)))) if rate else 1
        self._damage = damage
        self._offset = 0
        self._last: int | None = None
        self._last_duration = self.average

    def stamp(self, raw_pts: int | None, duration: int | None) -> int:
        """The ``pts`` of the next frame, from its raw stamp and length (both in time base units, either unknown)."""
        length = duration if duration and duration > 0 else self.average
        last = self._last
        if raw_pts is None:
            pts = 0 if last is None else last + self._last_duration
        else:
            pts = raw_pts - self._start + self._offset
            if last is not None and pts <= last:
                if (last - pts) * self._time_base > _BACKWARD_SECONDS:
                    self._offset += last + self._last_duration - pts
                    self._damage.note(f"time stamps restart after {float(last * self._time_base):.3f} s")
                    pts = last + self._last_duration
                else:
                    self._damage.note(f"a time stamp does not increase at {float(last * self._time_base):.3f} s")
                    pts = last + 1
        self._last, self._last_duration = pts, length
        return pts


class LossAccount:
    """Counts the time that packets promised and no frame was decoded for, within a span. Memory stays bounded: only
    packets that wait for their frame are kept.

    ``pts`` here counts from the stream's first PTS, in time base units.
    """

    def __init__(self, info: MediaInfo, span: Span | None) -> None:
        self._time_base = info.time_base
        self._span = span
        self._info = info
        self.restart()

    def restart(self) -> None:
        """Forget everything: decoding starts again from another place."""
        self._waiting: list[tuple[int, int]] = []
        self._last_frame: int | None = None
        self.packets_end = 0
        self.lost_units = 0
        self.lost_frames = 0

    def packet(self, pts: int, duration: int) -> None:
        """A packet went to the decoder."""
        if self._last_frame is None or pts > self._last_frame:
            heapq.heappush(self._waiting, (pts, duration))
        self.reached(pts + duration)

    def reached(self, end: int) -> None:
        """The container has data up to ``end``, decoded or not."""
        self.packets_end = max(self.packets_end, end)

    def frame(self, pts: int) -> None:
        """The frame at ``pts`` came out; what waits for an earlier time never will."""
        while self._waiting and self._waiting[0][0] <= pts:
            waited, duration = heapq.heappop(self._waiting)
            if waited < pts:
                self._lose(waited, duration)
        self._last_frame = pts

    def frames_from(self, pts: int) -> None:
        """Decoding starts at the key frame ``pts``: what lies before is not ours to count."""
        while self._waiting and self._waiting[0][0] < pts:
            heapq.heappop(self._waiting)

    def ended(self) -> None:
        """The packets are at their end: what still waits is lost, and so is what the container promised beyond."""
        while self._waiting:
            self._lose(*heapq.heappop(self._waiting))
        promised = self._info.duration_seconds
        if promised is None:
            return
        end = promised if self._span is None else min(promised, self._span.end_seconds)
        reached = float(self.packets_end * self._time_base)
        if self._span is not None:
            reached = max(reached, self._span.start_seconds)
        missing = end - reached
        # Less than two frames is rounding in the container, not loss.
        if missing > 2 / (self._info.average_fps or 25.0):
            self.lost_units += round(missing / float(self._time_base))

    def _lose(self, pts: int, duration: int) -> None:
        if self._span is None or self._span.contains(to_seconds(pts, self._time_base)):
            self.lost_units += duration
            self.lost_frames += 1

    @property
    def lost_seconds(self) -> float:
        return float(self.lost_units * Fraction(self._time_base))
