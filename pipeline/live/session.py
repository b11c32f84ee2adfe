"""One live stream as its library sees it: connections, windows and captions are written down as they come.

It lives in the process that shows the stream. Each commit is one transaction that other processes may search at once;
any number of sessions, of this process or of others, may write to a library side by side.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.catalog.records import CaptionRecord
from pipeline.errors import OutputError, SegmentGone
from pipeline.live.options import RetentionOptions
from pipeline.live.types import Connection, LiveBlock, LiveCaption, LiveState, LiveWindow, StreamCounts, utc_at
from pipeline.media import Span
from pipeline.sources.live.recording import recordings

if TYPE_CHECKING:
    from pipeline.caption_files import CaptionWriter
    from pipeline.catalog import Catalog
    from pipeline.live.loop import StreamTask

__all__ = ["Lags", "StreamSession"]

_SAMPLES = 4096
_HEARTBEAT_SECONDS = 2.0
_MESSAGES = 20
_CONNECTIONS = 256  # that are remembered here, besides the first: words are about the last ones
_SAME_SECONDS = 1e-6


class Lags:
    """Seconds between what happened and what is known of it: percentiles of the last ones."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_SAMPLES)
        self.count = 0

    def add(self, seconds: float) -> None:
        self._values.append(max(0.0, seconds))
        self.count += 1

    def percentile(self, share: float) -> float | None:
        """The value that ``share`` (0 to 1) of the last ones do not exceed; ``None`` before the first."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_dict(self) -> dict[str, float | int | None]:
        if not self._values:
            return {"count": self.count, "mean": None, "p50": None, "p95": None}
        # It is asked every second of every stream: sorted once.
        ordered = sorted(self._values)
        p50, p95 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95))
        return {"count": self.count, "mean": sum(ordered) / len(ordered), "p50": p50, "p95": p95}


@dataclass(frozen=True)
class _Said:
    """The caption that may yet be extended."""

    row: int
    span: Span


@dataclass(frozen=True)
class _Form:
    """The open window as it was committed last."""

    index: int
    start_seconds: float
    part: str


class StreamSession:
    """What a stream gives goes into the catalog, and its captions into files.

    A file that cannot be written costs no stream anything else: it is told in the counts' messages, and tried again
    with the next caption. What the catalog raises leaves all as it was, so that the same may be done again.
    :meth:`beat` may be called by a thread of its own.

    Args:
        video_id: of a stream that :meth:`pipeline.catalog.Catalog.open_stream` opened for this process.
        connections: those of earlier runs of the stream.
        until_seconds: how far its media time has come in them.
        next_window: number of its next window.
        files: where captions are written, beside the catalog.
        recordings: the folder of the stream's recorded files, which retention bounds as well.
        index: keep vectors, thumbnails and token sets; without it only captions and connections are.
        now: the wall clock (aware).
    """

    def __init__(
        self,
        catalog: Catalog,
        video_id: str,
        name: str,
        fingerprint: str,
        recipe_key: str,
        *,
        connections: Sequence[Connection] = (),
        until_seconds: float = 0.0,
        next_window: int = 0,
        files: Sequence[CaptionWriter] = (),
        retention: RetentionOptions | None = None,
        recordings: Path | None = None,
        index: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.video_id, self.name = video_id, name
        self.state, self.reason = LiveState.CONNECTING, ""
        self.freshness, self.caption_lag = Lags(), Lags()
        self.connections = list(connections)
        self._catalog = catalog
        self._version = (fingerprint, recipe_key)
        self._files = list(files)
        self._retention = retention or RetentionOptions()
        self._recordings = recordings
        self._index = index
        self._now = now
        self._bad: dict[int, OutputError] = {}  # files whose last caption could not be written
        self._provisional: _Form | None = None
        self._segments: dict[int, int] = {}  # windows that may yet be captioned -> their segment
        self._said: _Said | None = None
        self._searchable = 0.0  # up to this media time
        self._kept_from = 0.0  # what is older was pruned
        self._until = until_seconds
        self._beaten = self._pruned = float("-inf")
        # Counts of what happened here, of the process that watches now, and of those before it.
        self._own, self._of_worker, self._before = StreamCounts(), StreamCounts(), StreamCounts()
        self._next_window = next_window
        self._closing = threading.Lock()
        self._closed = False
        self._forget_connections()

    @property
    def counts(self) -> StreamCounts:
        """Since the stream was started; nothing is left out."""
        sums = self._before.plus(self._of_worker).plus(self._own)
        sums.seconds = self._until
        sums.caption_lag, sums.freshness = self.caption_lag.to_dict(), self.freshness.to_dict()
        return sums

    # -- what comes ----------------------------------------------------------------------------------------------------

    def take(self, block: LiveBlock) -> bool:
        """Note the state, counts and connections of a block; True where the state changed."""
        self._until = max(self._until, block.until_seconds)
        for connection in block.connections:
            if self.connections and connection.number <= self.connections[-1].number:
                continue  # this block was begun with before
            self._end_connection(connection.reason or "lost")
            self._catalog.add_connection(self.video_id, connection)
            self.connections.append(connection)
        self._forget_connections()
        changed = (block.state, block.reason) != (self.state, self.reason)
        self.state, self.reason = block.state, block.reason
        self._of_worker = block.counts
        return changed

    def _forget_connections(self) -> None:
        """A camera that breaks off every minute does so for years; the first tells where media time began."""
        del self.connections[1:-_CONNECTIONS]

    def _end_connection(self, reason: str) -> None:
        if self.connections and self.connections[-1].end_seconds is None:
            last = self.connections[-1]
            end = max(self._until, last.start_seconds)
            self._catalog.end_connection(self.video_id, last.number, end, reason)
            self.connections[-1] = replace(last, end_seconds=end, reason=reason)

    def commit(self, windows: Sequence[LiveWindow]) -> None:
        """Make windows searchable: the open one in its form so far, those that are complete in their last."""
        for window in windows:
            self._next_window = max(self._next_window, window.index + 1)
            if not self._index:
                continue
            form, start = self._provisional, window.span.start_seconds
            same = form is not None and form.index == window.index and abs(form.start_seconds - start) < _SAME_SECONDS
            # One that begins later goes on after what was lost: the form before it stays.
            before = form.part if form is not None and same else None
            done = self._catalog.commit_window(self.video_id, *self._version, window, before)
            self._provisional = None if window.closed else _Form(window.index, start, done.part_id)
            if window.closed:
                self._segments[window.index] = done.segment_id
                while len(self._segments) > 64:  # nobody will caption the oldest any more
                    del self._segments[next(iter(self._segments))]
            self._note_freshness(window.span)

    def _note_freshness(self, span: Span) -> None:
        """How long the oldest second that is searchable only now had to wait."""
        since = max(self._searchable, span.start_seconds)
        if span.end_seconds <= since:
            return
        happened = utc_at(self.connections, since)
        if happened is not None:
            self.freshness.add((self._now() - happened).total_seconds())
        self._searchable = span.end_seconds

    def skip(self, count: int, reason: str = "") -> None:
        """So many windows get no words: the captioner is behind, or ``reason``."""
        self._own.windows_skipped += count
        if reason:
            self.note(reason)

    def note(self, message: str) -> None:
        """Keep a message with the counts; each once, and the last ones."""
        if message not in self._own.messages:
            self._own.messages = [*self._own.messages, message][-_MESSAGES:]

    def crashed(self, reason: str) -> None:
        """The process that watched the stream died; it will be watched again."""
        self.state, self.reason = LiveState.RECONNECTING, reason

    def resumed(self, task: StreamTask) -> StreamTask:
        """The task that goes on where the one that was watched has come to."""
        self._end_connection(self.reason)
        self._before = self._before.plus(self._of_worker)
        self._of_worker = StreamCounts()
        if not self.connections:
            return task
        return replace(
            task,
            first_utc=self.connections[0].utc_of(0.0),
            resume_seconds=self._until,
            next_connection=self.connections[-1].number + 1,
            next_window=self._next_window,
        )

    def caption(self, caption: LiveCaption) -> LiveCaption:
        """Write a caption down; what is shown of it, with its times."""
        from pipeline.caption_files import Cue

        if self._index:
            self._keep(caption)
        utc = utc_at(self.connections, caption.span.start_seconds)
        ended = utc_at(self.connections, max(caption.span.end_seconds - 1e-3, caption.span.start_seconds))
        lag = None
        if ended is not None:
            lag = (self._now() - ended).total_seconds()
            self.caption_lag.add(lag)
        self._own.captions += 0 if caption.extends else 1
        cue = Cue(
            caption.span.start_seconds,
            caption.span.end_seconds,
            caption.text,
            utc=utc,
            stream=self.name,
            model=caption.model,
            confidence=caption.confidence,
        )
        for number, file in enumerate(self._files):
            with self._told(number):
                if caption.extends:
                    file.extend(caption.span.end_seconds)
                else:
                    file.write(cue)
        return replace(caption, utc=utc, lag_seconds=lag)

    @contextmanager
    def _told(self, number: int) -> Iterator[None]:
        """Within it, a file that cannot be written is told."""
        try:
            yield
        except (OutputError, OSError) as error:
            self._bad[number] = error if isinstance(error, OutputError) else OutputError(f"captions: {error}")
            self.note(str(self._bad[number]))
        else:
            self._bad.pop(number, None)

    def _keep(self, caption: LiveCaption) -> None:
        span = caption.span
        if caption.extends and self._said is not None:
            span = Span(self._said.span.start_seconds, span.end_seconds)
            if self._catalog.extend_caption(self._said.row, span.end_seconds):
                self._said = replace(self._said, span=span)
                return
            # It went with the window that it began in. What it says of the time that is kept, it goes on to say.
            span = Span(max(span.start_seconds, self._kept_from), span.end_seconds)
        self._said = None
        segment = self._segments.get(caption.window)
        if segment is None:
            return
        record = CaptionRecord(self.video_id, caption.model, caption.text, span, caption.confidence)
        try:
            self._said = _Said(self._catalog.add_caption(segment, record), span)
        except SegmentGone:
            return  # pruned before there were words for it

    # -- now and then --------------------------------------------------------------------------------------------------

    def beat(self, clock: float, force: bool = False) -> bool:
        """Say that the stream lives, prune what is too old; True where somebody asked the stream to stop.

        Args:
            clock: monotonic seconds.

        Raises:
            StreamBusy: another process has taken this one for dead, and watches the stream now.
            UnknownVideo: the stream was removed.
        """
        with self._closing:
            if self._closed or (not force and clock - self._beaten < _HEARTBEAT_SECONDS):
                return False
            self._beaten = clock
            if clock - self._pruned >= self._retention.every_seconds:
                self._pruned = clock
                self.prune()
            if self.state.is_over:
                return False
            return self._catalog.heartbeat_stream(self.video_id, self.state, asdict(self.counts))

    def prune(self) -> None:
        """Let go of what is older, or more, than is to be kept."""
        hours, size = self._retention.hours, self._retention.bytes
        if hours and (oldest := self._now_seconds() - hours * 3600) > 0:
            self._pruned_until(self._catalog.prune_stream(self.video_id, oldest).until_seconds)
        of_files = 0
        try:
            of_files = self._prune_recordings()
        except OSError as error:
            self.note(f"{self._recordings}: recordings cannot be pruned ({error.strerror or error})")
        if size and self._catalog.stream_bytes(self.video_id) + of_files > size:
            self._pruned_until(self._catalog.prune_stream_to(self.video_id, max(0, size - of_files)).until_seconds)

    def _now_seconds(self) -> float:
        """The media time of now: it goes on while a camera is away, and so does the age of what is kept of it."""
        if not self.connections:
            return self._until
        last = self.connections[-1]
        return max(self._until, last.start_seconds + (self._now() - last.utc).total_seconds())

    def _pruned_until(self, seconds: float | None) -> None:
        self._kept_from = max(self._kept_from, seconds or 0.0)

    def _prune_recordings(self) -> int:
        """Delete recorded files from the front, never the newest; the bytes of those that are left."""
        if self._recordings is None or not self._recordings.is_dir():
            return 0
        files = [(recording.path, recording.path.stat()) for recording in recordings(self._recordings)]
        hours, size = self._retention.hours, self._retention.bytes
        limit = self._now().timestamp() - hours * 3600
        while hours and files[:-1] and files[0][1].st_mtime < limit:
            files.pop(0)[0].unlink(missing_ok=True)
        held = self._catalog.stream_bytes(self.video_id) if size else 0
        of_files = sum(stat.st_size for _, stat in files)
        # Pictures to play go before what is needed to find anything.
        while size and files[:-1] and held + of_files > size:
            path, stat = files.pop(0)
            path.unlink(missing_ok=True)
            of_files -= stat.st_size
        return of_files

    def close(self, error: BaseException | None = None) -> None:
        """The stream is over: its files are finished, its end is written down.

        Raises:
            OutputError: the last caption of a file could not be written; the stream's end says so.
            LibraryError: the end could not be written down.
        """
        with self._closing:
            for number, file in enumerate(self._files):
                bad = self._bad.get(number)
                with self._told(number):
                    file.close()
                    if bad is not None:
                        raise bad
            unwritten = next(iter(self._bad.values()), None)
            self._closed = True
            self.state = LiveState.ENDED if error is None and unwritten is None else LiveState.FAILED
            self._end_connection(self.reason or self.state.value)
            self._catalog.end_stream(self.video_id, self.state, error or unwritten, asdict(self.counts))
        if error is None and unwritten is not None:
            raise unwritten
