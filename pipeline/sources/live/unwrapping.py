"""Time stamps of few bits made continuous: MPEG-TS begins again at zero after 26.5 hours, RTMP after 49.7 days."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["Unwrapper"]

_BITS = (33, 32, 31)
_NEAR_SECONDS = 10.0


class Unwrapper:
    """Adds what was lost at each wrap-around. Any other jump is passed on: it is for others to judge.

    A step is a wrap-around where it would be a short one, of less than ten seconds, with a power of two added.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._near = max(1, int(_NEAR_SECONDS / time_base))
        self._last: int | None = None  # continuous
        self._offset = 0
        self._length = 0

    def seed(self, first: int, length: int) -> None:
        """The first time stamp will be about ``first``, and frames are so long where they do not say."""
        self._last, self._length = first - length, length

    def to_continuous(self, raw: int | None, duration: int | None = None) -> int:
        """The next frame's time stamp; a missing one is the last one plus that frame's length."""
        if raw is None:
            value = 0 if self._last is None else self._last + max(1, self._length)
        else:
            self._offset = self._offset_for(raw)
            value = raw + self._offset
        if duration:
            self._length = duration
        self._last = value
        return value

    def peek(self, raw: int) -> int:
        """What a time stamp near the last one would be, without taking it."""
        return raw + self._offset_for(raw)

    def _offset_for(self, raw: int) -> int:
        if self._last is None:
            return self._offset
        step = raw + self._offset - self._last
        if abs(step) <= self._near:
            return self._offset
        for bits in _BITS:
            period = 1 << bits
            for turns in (1, -1):
                if abs(step + turns * period) <= self._near:
                    return self._offset + turns * period
        return self._offset
