"""A live stream: whatever happens to its connections, one sequence of frames and of what there is to say about them."""

from __future__ import annotations

import os
import random as random_module
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.errors import SourceUnreadable, StreamTimeout
from pipeline.live.types import Connection, LiveState, StreamCounts
from pipeline.media import Frame
from pipeline.sources.live.kinds import kind_of, shown
from pipeline.sources.live.messages import StateChange, Tick
from pipeline.sources.live.options import LiveOptions

__all__ = ["LiveStream"]

_TICK_SECONDS = 0.5
_STOP_SECONDS = 0.8  # for the reader to end; what waits longer is left behind
_MOST_HUNG = 3  # readers that hang in a driver at the same time, before the stream is given up


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class LiveStream:
    """One live source, watched until it ends, fails or is stopped. Nothing happens before :meth:`messages` is read.

    Args:
        url: see :data:`pipeline.sources.live.KINDS`.
        short_side: pixels of the frames' short side; None keeps the display size.
        first_utc: the wall clock at media time zero, of a stream that was watched before.
        resume_seconds: how far its media time has come.
        number: of its next connection.
        record_folder: the compressed video is kept there as it comes.
        wants: frames that it refuses are counted as received, and not given. Called in the reader's thread.
        clock: the wall clock (aware).
        sleep: waits between two tries; by default in a way that :meth:`stop` ends.
        random: from 0 to 1, for the jitter.

    Attributes:
        counts: what became of the frames; the reader adds to it while it runs.
        state: where it stands.

    Raises:
        UnknownScheme: an address of no known kind.
        SourceUnreadable: the folder for recordings cannot be written to.
    """

    def __init__(
        self,
        url: str,
        options: LiveOptions | None = None,
        *,
        short_side: int | None = None,
        first_utc: datetime | None = None,
        resume_seconds: float = 0.0,
        number: int = 0,
        record_folder: str | os.PathLike[str] | None = None,
        wants: Callable[[Frame], bool] | None = None,
        clock: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], object] | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        from pipeline.sources.live.reader import Reader, ReaderParts, note
        from pipeline.sources.live.recording import Recorder
        from pipeline.sources.live.timeline import Timeline
        from pipeline.sources.live.waiting import FrameQueue

        self.url, self.options = url, options or LiveOptions()
        kind_of(url)
        self.counts = StreamCounts()
        self.state = LiveState.CONNECTING
        if record_folder is not None:
            _check_writable(Path(record_folder))

        def recorder() -> Recorder | None:
            if record_folder is None:
                return None
            return Recorder(record_folder, self.options.record_seconds, lambda text: note(self.counts, text))

        self._make_recorder = recorder
        self._queue: FrameQueue[Any] = FrameQueue(self.options.policy, self.options.queue_frames)
        self._parts = ReaderParts(
            url=url,
            options=self.options,
            short_side=short_side,
            queue=self._queue,
            timeline=Timeline(first_utc, resume_seconds, number),
            counts=self.counts,
            recorder=recorder(),
            wants=wants,
            clock=clock,
            sleep=sleep,
            random=random,
            played=number > 0,
        )
        self._make_reader: Callable[..., Reader] = Reader
        self._reader: Reader | None = None
        self._hung: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._clock = clock

    def messages(self) -> Generator[Frame | StateChange | Connection | Tick, None, None]:
        """Everything that happens, in order, to the end; once.

        A :class:`Connection` comes before its first frame, also where the source's clock jumped or its picture size
        changed: its ``reason`` is why the one before it ended. While nothing comes there is a :class:`Tick` every half
        second. The last message is the change to ended or failed.

        Raises:
            SourceError: the stream failed for good. Everything that came before has been given.
        """
        from pipeline.sources.live.reader import Over

        if not self._stopped.is_set():
            self._reader = self._make_reader(self._parts)
            self._reader.start()
        stop_by: float | None = None
        try:
            while True:
                item = self._queue.get(_TICK_SECONDS)
                if item is None and self._stopped.is_set():
                    # What had come is given; the reader may need a moment to let go.
                    stop_by = stop_by or time.monotonic() + _STOP_SECONDS
                    if self._reader is None or not self._reader.is_alive() or time.monotonic() >= stop_by:
                        yield self._now(LiveState.ENDED, "stopped")
                        return
                    self._reader.join(0.05)
                elif item is None:
                    yield Tick(self._clock())
                    yield from self._watchdog()
                elif isinstance(item, Over):
                    yield self._now(item.state, item.reason)
                    if item.error is not None:
                        raise item.error
                    return
                else:
                    if isinstance(item, StateChange):
                        self.state = item.state
                    elif isinstance(item, Frame) and self.state is LiveState.STALLED:
                        yield self._now(LiveState.PLAYING, "frames come again")
                    yield item
        finally:
            self.close()

    def _now(self, state: LiveState, reason: str) -> StateChange:
        self.state = state
        return StateChange(state, reason, self._clock())

    def _watchdog(self) -> Generator[StateChange, None, None]:
        """Nothing waits to be given: see whether something should."""
        from pipeline.sources.live.repeats import Repeats

        reader, options = self._reader, self.options
        assert reader is not None
        now, last, due = time.monotonic(), reader.last_frame, reader.due
        if self.state is LiveState.PLAYING and last is not None and now - last >= options.stall_seconds:
            yield self._now(LiveState.STALLED, f"no frame for {now - last:.1f} s")
        if due is not None and now > due:
            # It hangs where nothing can interrupt it (a driver, a name look-up): another takes its place.
            reader.interrupt.set()
            self._hung = [*(other for other in self._hung if other.is_alive()), reader]
            # What it has in its hands, and may still touch when it wakes up, is its own from now on.
            self._parts = parts = replace(
                self._parts, failures=self._parts.failures + 1, recorder=self._make_recorder(), repeats=Repeats()
            )
            hung = f"{shown(self.url)}: hangs in the system, and cannot be interrupted"
            most = options.max_attempts if parts.played else options.first_attempts
            if len(self._hung) >= _MOST_HUNG or not options.reconnect or 0 < most <= parts.failures:
                yield self._now(LiveState.FAILED, hung)
                raise StreamTimeout(hung)
            yield self._now(LiveState.RECONNECTING, hung)
            self._reader = self._make_reader(self._parts, reason=hung)
            self._reader.start()

    def stop(self) -> None:
        """End it, from any thread and at once, also in the middle of a read. What has come is still given."""
        self._stopped.set()
        reader = self._reader
        if reader is not None:
            reader.interrupt.set()
        self._queue.close()

    def close(self) -> None:
        """Stop it and wait a moment for its connection to be let go. May be called more than once."""
        self.stop()
        reader = self._reader
        if reader is not None and reader is not threading.current_thread():
            reader.join(_STOP_SECONDS)

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".longreel-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SourceUnreadable(f"{folder}: recordings cannot be written there ({error.strerror or error})") from error
