"""The media time of a stream, over all its connections.

It begins at the first frame ever and goes with the wall clock: while frames come their time stamps are believed, and
each new connection is put where the wall clock says that it is, never before the end of the last one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.live.types import Connection
from pipeline.media import MediaInfo

__all__ = ["Timeline"]

_US = 1_000_000
_FORWARD_US = 10 * _US  # a step by more than this, beyond what the wall clock went, is no pause but another clock
_BACKWARD_US = 1 * _US  # and back by more than this is no disorder


class Timeline:
    """Where frames lie in a stream's media time; times of frames in whole microseconds.

    Args:
        first_utc: the wall clock at media time zero, of a stream that was watched before.
        resume_seconds: how far its media time has come.
        number: of its next connection.
    """

    def __init__(self, first_utc: datetime | None = None, resume_seconds: float = 0.0, number: int = 0) -> None:
        self._first_utc = first_utc
        self._end = round(resume_seconds * _US)  # of all frames so far
        self._next_number = number
        self._connection: Connection | None = None
        self._offset = 0  # from a frame's own time to media time
        self._last: int | None = None  # the newest frame's media time, in this connection
        self._last_own = 0
        self._last_at = 0.0
        self._least_late = float("inf")  # between a frame's own time and its arrival, of this clock

    @property
    def connection(self) -> Connection | None:
        """The one that is under way."""
        return self._connection

    @property
    def end_seconds(self) -> float:
        """Where the last frame ends."""
        return self._end / _US

    def begin(self, own: int, utc: datetime, info: MediaInfo | None, reason: str | None) -> Connection:
        """A connection begins: its first frame has the time stamp ``own``, and was taken at ``utc``.

        Args:
            reason: why the one before ended; None for the first.
        """
        if self._first_utc is None:
            self._first_utc = utc
        by_clock = (utc - self._first_utc) // timedelta(microseconds=1)
        start = max(self._end, by_clock)
        self._offset = start - own
        self._last, self._least_late = None, float("inf")
        return self._opened(start, utc, info, reason)

    def reshape(self, own: int, info: MediaInfo, reason: str) -> Connection:
        """The frame at ``own`` and those after it are of another format; their clock is the same."""
        assert self._connection is not None
        start = max(own + self._offset, 0 if self._last is None else self._last + 1)
        return self._opened(start, self._connection.utc_of(start / _US), info, reason)

    def _opened(self, start: int, utc: datetime, info: MediaInfo | None, reason: str | None) -> Connection:
        self._connection = Connection(self._next_number, start / _US, utc, reason=reason, info=info)
        self._next_number += 1
        return self._connection

    def jumps(self, own: int, at: float, *, live: bool = True) -> bool:
        """Whether the frame at ``own``, which came at ``at`` (monotonic seconds), is by another clock than the last.

        Args:
            live: frames come as they happen: the wall clock tells a pause from a jump, and a server that was started
                anew, whose frames are late by their time stamps, from pictures in disorder. In a file a step forward
                is a pause.
        """
        if self._last is None:
            return False
        step = own - self._last_own
        if step < 0:
            late = at * _US - own - self._least_late if live else -step
            return late > _BACKWARD_US
        return live and step > _FORWARD_US + max(0.0, at - self._last_at) * _US

    def place(self, own: int, duration: int, at: float) -> tuple[int, int]:
        """Media time and length of the next frame: later than the one before, if only by a microsecond."""
        pts = own + self._offset
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._last, self._last_own, self._last_at = pts, own, at
        self._least_late = min(self._least_late, at * _US - own)
        duration = max(1, duration)
        self._end = max(self._end, pts + duration)
        return pts, duration
