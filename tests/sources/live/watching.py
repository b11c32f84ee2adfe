"""Reading a live stream in tests: with a time limit, so that a stream that says nothing fails instead of hanging."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from pipeline.live.types import Connection
from pipeline.media import Frame
from pipeline.sources.live import LiveOptions, LiveStream, StateChange, Tick
from tests.sources.live.servers import number_of

__all__ = ["Watched", "watch"]

LIMIT_SECONDS = 30.0


class Watched:
    """What a stream has said so far; the rest is read as far as one asks."""

    def __init__(self, stream: LiveStream) -> None:
        self.stream = stream
        self.frames: list[Frame] = []
        self.connections: list[Connection] = []
        self.states: list[StateChange] = []
        self.order: list[str] = []  # kinds of messages without ticks, a run of frames as one
        self._messages = stream.messages()

    def until(self, true: Callable[[Watched], Any]) -> Watched:
        """Read on until it is true."""
        end = time.monotonic() + LIMIT_SECONDS
        while not true(self):
            assert time.monotonic() < end, f"after {LIMIT_SECONDS} s: {self.order}, {self.states[-3:]}"
            message = next(self._messages, None)
            assert message is not None, f"it ended: {self.order}, {self.states[-3:]}"
            self._take(message)
        return self

    def to_the_end(self) -> Watched:
        """Read everything; raises what the stream raises."""
        end = time.monotonic() + LIMIT_SECONDS
        for message in self._messages:
            assert time.monotonic() < end, f"after {LIMIT_SECONDS} s: {self.order}, {self.states[-3:]}"
            self._take(message)
        return self

    def _take(self, message: Frame | StateChange | Connection | Tick) -> None:
        if isinstance(message, Frame):
            self.frames.append(message)
            if self.order[-1:] != ["frames"]:
                self.order.append("frames")
        elif isinstance(message, Connection):
            self.connections.append(message)
            self.order.append("connection")
        elif isinstance(message, StateChange):
            self.states.append(message)
            self.order.append(message.state.value)

    @property
    def numbers(self) -> list[int]:
        """The numbers that the frames' pictures show."""
        return [number_of(frame.image) for frame in self.frames]

    @property
    def steps(self) -> list[int]:
        """Microseconds from each frame to the next."""
        return [b.pts - a.pts for a, b in zip(self.frames, self.frames[1:], strict=False)]

    def close(self) -> None:
        self._messages.close()


@contextmanager
def watch(url: str, **options: Any) -> Iterator[Watched]:
    """Watch a stream, with options of :class:`LiveStream` and of :class:`LiveOptions`; impatient by default."""
    names = {field.name for field in fields(LiveOptions)}
    patience = {"open_seconds": 5.0, "stall_seconds": 1.0, "backoff_seconds": 0.1, "backoff_max_seconds": 0.2}
    own = {name: options.pop(name) for name in list(options) if name in names}
    stream = LiveStream(url, LiveOptions(**{**patience, **own}), **{"short_side": 120, **options})
    watched = Watched(stream)
    try:
        yield watched
    finally:
        watched.close()
