"""The decode side of a live stream: frames and changes of state in, blocks of looks and complete windows out.

It holds a few frames, whatever the stream's length. A window ends at a shot boundary, at its limit, where frames stop
coming, or when something happens after a still stretch: see :class:`pipeline.live.options.WindowOptions`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from pipeline.gate import Gate, GateOptions
from pipeline.live.options import WindowOptions
from pipeline.live.types import ClosedWindow, Connection, LiveBlock, LiveState, StreamCounts
from pipeline.media import Frame, Span
from pipeline.sampling import Sampler, SamplingOptions
from pipeline.segments import SegmentOptions, ShotDetector
from pipeline.sources.live import StateChange, Tick

__all__ = ["LiveWatcher"]

_SHORTEST_SECONDS = 1e-6
_HOLE_SECONDS = 5.0  # without a frame: what was seen before it says nothing of it


class LiveWatcher:
    """Shots, sampling, gate and windows over a stream's messages; gives a block every beat.

    Args:
        first_window: number of the first window: a stream that goes on after a restart counts on.
        counts: those of the source, which go on in them; the watcher adds what it does itself.
    """

    def __init__(
        self,
        sampling: SamplingOptions,
        gate: GateOptions,
        segments: SegmentOptions,
        window: WindowOptions,
        *,
        first_window: int = 0,
        counts: StreamCounts | None = None,
    ) -> None:
        self._segments = segments
        self._options = window
        self._sampling = sampling
        self._gate = Gate(gate)
        self._counts = counts if counts is not None else StreamCounts()
        self._index = first_window
        self._start: float | None = None  # of the open window
        self._until = 0.0  # how far everything is known
        self._fresh = False  # something new was seen in the open window
        self._after_shot = True  # the open window began with a shot, or after a gap
        self._connection: Connection | None = None
        self._new_connections: list[Connection] = []
        self._state, self._reason = LiveState.CONNECTING, ""
        self._unsettled: deque[tuple[Frame, bool]] = deque()
        self._cuts: set[int] = set()
        self._spare: Frame | None = None
        self._looks: list[tuple[npt.NDArray[np.uint8], float, int, int]] = []  # image, start, weight, window
        self._window_looks = 0
        self._extended = 0
        self._closed: list[ClosedWindow] = []
        self._last_beat = float("-inf")
        self._changed = False
        self._restart()

    def take(self, message: Frame | StateChange | Connection | Tick) -> Iterator[LiveBlock]:
        """The next message of the source; a block when there is something to pass on."""
        if isinstance(message, Frame):
            self._see(message)
        elif isinstance(message, Connection):
            self._settle_all()
            self._end_window("gap")
            self._connection = message
            self._restart()
            self._new_connections.append(message)
        elif isinstance(message, StateChange):
            self._state, self._reason, self._changed = message.state, message.reason, True
            if message.state is not LiveState.PLAYING:
                # Nobody knows when the next frame comes: what was seen so far is complete.
                self._settle_all()
                self._end_window("end" if message.state.is_over else "gap")
        due = self._until - self._last_beat >= self._options.beat_seconds
        if self._closed or self._new_connections or self._changed or due or isinstance(message, Tick):
            yield self._block()

    def finish(self) -> Iterator[LiveBlock]:
        """The stream is over, whatever the reason: the rest."""
        self._settle_all()
        self._end_window("end")
        yield self._block()

    # -- frames --------------------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        """What was known of the pictures before says nothing of those to come."""
        rate = None
        if self._connection is not None and self._connection.info is not None:
            rate = self._connection.info.average_fps
        self._shots = ShotDetector(self._segments, rate)
        self._sampler = Sampler(self._sampling)
        self._gate.reset()
        self._cuts.clear()
        self._spare = None
        self._after_shot = True

    def _see(self, frame: Frame) -> None:
        self._unsettled.append((frame, self._sampler.wants(frame)))
        self._cuts.update(self._shots.push(frame))
        while len(self._unsettled) > self._shots.lag:
            self._settle(*self._unsettled.popleft())

    def _settle_all(self) -> None:
        while self._unsettled:
            self._settle(*self._unsettled.popleft())

    def _settle(self, frame: Frame, sampled: bool) -> None:
        seconds = frame.pts_seconds
        is_cut = frame.pts in self._cuts
        self._cuts.discard(frame.pts)
        if self._start is not None and seconds - self._until > _HOLE_SECONDS:
            self._end_window("gap")  # frames were dropped, or the camera sent none
        if self._start is None:
            self._begin_window(seconds)
        assert self._start is not None
        if is_cut and seconds > self._start:
            self._until = max(self._until, seconds)
            self._end_window("shot", seconds)
            self._begin_window(seconds)
        self._limit(seconds)
        self._spare = frame
        if sampled:
            self._sample(frame, seconds)
        self._until = max(self._until, frame.end_seconds)

    def _limit(self, seconds: float) -> None:
        """End the open window where it has lasted long enough by ``seconds``, and those that follow it."""
        while self._start is not None:
            limit = self._start + (self._options.still_seconds if self._is_still else self._options.max_seconds)
            if seconds < limit:
                return
            self._until = max(self._until, limit)
            self._end_window("limit", limit)
            self._begin_window(limit)

    @property
    def _is_still(self) -> bool:
        """The open window only shows on what the window before ended with."""
        return not self._fresh and not self._after_shot

    def _sample(self, frame: Frame, seconds: float) -> None:
        self._counts.frames_sampled += 1
        seen = self._gate.judge(frame.image, seconds)
        assert self._start is not None
        if seen == "new" and self._is_still and seconds - self._start >= self._options.max_seconds / 2:
            # Something happens after a still stretch: its window begins here, not seconds before.
            self._until = max(self._until, seconds)
            self._end_window("news", seconds)
            self._begin_window(seconds)
        if seen == "same":
            self._counts.skipped_by_gate += 1
            if self._looks:
                image, start, weight, window = self._looks[-1]
                self._looks[-1] = (image, start, weight + 1, window)
            else:
                self._extended += 1
            return
        self._fresh |= seen == "new"
        self._look(frame, seconds)

    def _look(self, frame: Frame, seconds: float) -> None:
        assert self._start is not None
        # A window's first look stands from its beginning, unless the last one of the window before goes on until then.
        since = seconds - self._start
        first = self._window_looks == 0 and (self._after_shot or since <= self._options.beat_seconds)
        self._looks.append((frame.image, self._start if first else seconds, 1, self._index))
        self._window_looks += 1
        self._counts.frames_encoded += 1

    # -- windows -------------------------------------------------------------------------------------------------------

    def _begin_window(self, seconds: float) -> None:
        self._start = seconds
        self._fresh = False
        self._window_looks = 0

    def _end_window(self, boundary: str, seconds: float | None = None) -> None:
        """Close the open window, if any, at ``seconds`` or where the last frame ended."""
        if self._start is None:
            return
        end = max(self._until if seconds is None else seconds, self._start + _SHORTEST_SECONDS)
        if self._after_shot and self._window_looks == 0 and self._spare is not None:
            self._look(self._spare, self._start)  # shorter than the sampling grid
        still = self._is_still
        self._closed.append(ClosedWindow(self._index, Span(self._start, end), boundary, still))
        self._counts.windows += 1
        self._index += 1
        self._start = None
        # What begins after a shot or a gap begins with a look of its own; else the last one may stand on.
        self._after_shot = boundary in ("shot", "gap", "end")
        if self._after_shot:
            self._gate.reset()

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _block(self) -> LiveBlock:
        looks, self._looks = self._looks, []
        shape = looks[-1][0].shape if looks else (0, 0, 3)
        same = [look for look in looks if look[0].shape == shape]
        # A stream changes its picture size with a new connection, whose first block begins anew; of a change in
        # between, the older pictures are scaled to the new ones.
        if len(same) != len(looks):
            looks = [(_scaled(look[0], shape), *look[1:]) for look in looks]
        now: datetime | None = None
        if self._connection is not None and (self._until > 0 or looks):
            now = self._connection.utc_of(self._until)
        block = LiveBlock(
            images=np.stack([look[0] for look in looks]) if looks else np.zeros((0, *shape), np.uint8),
            start_seconds=np.array([look[1] for look in looks], np.float64),
            weight=np.array([look[2] for look in looks], np.int64),
            window=np.array([look[3] for look in looks], np.int64),
            until_seconds=self._until,
            extended=self._extended,
            opened=None if self._start is None else (self._index, self._start),
            closed=tuple(self._closed),
            captured_utc=now,
            connections=tuple(self._new_connections),
            state=self._state,
            reason=self._reason,
            counts=replace(self._counts, messages=list(self._counts.messages)),
        )
        self._extended = 0
        self._closed.clear()
        self._new_connections.clear()
        self._last_beat = self._until
        self._changed = False
        return block


def blocks(watcher: LiveWatcher, messages: Iterable[Frame | StateChange | Connection | Tick]) -> Iterator[LiveBlock]:
    """All blocks of a stream's messages, the last ones included."""
    for message in messages:
        yield from watcher.take(message)
    yield from watcher.finish()


def _scaled(image: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if image.shape == shape:
        return image
    import cv2

    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)
