"""One live stream as its library sees it: connections, windows and captions are written down as they come.

It lives in the process that shows the stream. Each commit is one transaction that other processes may search at once;
any number of sessions, of this process or of others, may write to a library side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.catalog.records import CaptionRecord
from pipeline.live.options import RetentionOptions
from pipeline.live.types import Connection, LiveBlock, LiveCaption, LiveState, LiveWindow, StreamCounts, utc_at
from pipeline.media import Span

if TYPE_CHECKING:
    from pipeline.caption_files import CaptionWriter
    from pipeline.catalog import Catalog
    from pipeline.live.loop import StreamTask

__all__ = ["Lags", "StreamSession"]

_SAMPLES = 4096
_HEARTBEAT_SECONDS = 2.0
_MESSAGES = 20


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
        mean = sum(self._values) / len(self._values) if self._values else None
        return {"count": self.count, "mean": mean, "p50": self.percentile(0.5), "p95": self.percentile(0.95)}


@dataclass
class _Said:
    """The caption that may yet be extended."""

    row: int
    span: Span


class StreamSession:
    """What a stream gives goes into the catalog, and its captions into files.

    Args:
        video_id: of a stream that :meth:`pipeline.catalog.Catalog.open_stream` opened for this process.
        connections: those of earlier runs of the stream.
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
        self._provisional: tuple[int, str] | None = None  # window and part of the open window
        self._segments: dict[int, int] = {}  # windows that may yet be captioned -> their segment
        self._said: _Said | None = None
        self._searchable = 0.0  # up to this media time
        self._until = 0.0
        self._beaten = self._pruned = float("-inf")
        # Counts of what happened here, of the process that watches now, and of those before it.
        self._own, self._of_worker, self._before = StreamCounts(), StreamCounts(), StreamCounts()
        self._next_window = 0

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
        changed = (block.state, block.reason) != (self.state, self.reason)
        self.state, self.reason = block.state, block.reason
        self._of_worker = block.counts
        for connection in block.connections:
            self._end_connection(connection.reason or "lost")
            self.connections.append(connection)
            self._catalog.add_connection(self.video_id, connection)
        self._until = max(self._until, block.until_seconds)
        return changed

    def _end_connection(self, reason: str) -> None:
        if self.connections and self.connections[-1].end_seconds is None:
            last = self.connections[-1]
            end = max(self._until, last.start_seconds)
            self.connections[-1] = replace(last, end_seconds=end, reason=reason)
            self._catalog.end_connection(self.video_id, last.number, end, reason)

    def commit(self, windows: Sequence[LiveWindow]) -> None:
        """Make windows searchable: the open one in its form so far, those that are complete in their last."""
        for window in windows:
            self._next_window = max(self._next_window, window.index + 1)
            if not self._index:
                continue
            before = None
            if self._provisional is not None and self._provisional[0] == window.index:
                before = self._provisional[1]
            done = self._catalog.commit_window(self.video_id, *self._version, window, before)
            self._provisional = None if window.closed else (window.index, done.part_id)
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
        if reason and reason not in self._own.messages:
            self._own.messages = [*self._own.messages, reason][-_MESSAGES:]

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
            first_utc=self.connections[0].utc,
            resume_seconds=self._until,
            next_connection=self.connections[-1].number + 1,
            next_window=self._next_window,
        )

    def caption(self, caption: LiveCaption) -> LiveCaption:
        """Write a caption down; what is shown of it, with its times."""
        from pipeline.caption_files import Cue

        utc = utc_at(self.connections, caption.span.start_seconds)
        ended = utc_at(self.connections, max(caption.span.end_seconds - 1e-3, caption.span.start_seconds))
        lag = None
        if ended is not None:
            lag = (self._now() - ended).total_seconds()
            self.caption_lag.add(lag)
        shown = replace(caption, utc=utc, lag_seconds=lag)
        self._own.captions += 0 if caption.extends else 1
        if self._index:
            self._keep(caption)
        for file in self._files:
            if caption.extends:
                file.extend(caption.span.end_seconds)
            else:
                file.write(
                    Cue(
                        caption.span.start_seconds,
                        caption.span.end_seconds,
                        caption.text,
                        utc=utc,
                        stream=self.name,
                        model=caption.model,
                        confidence=caption.confidence,
                    )
                )
        return shown

    def _keep(self, caption: LiveCaption) -> None:
        if caption.extends and self._said is not None:
            self._said.span = Span(self._said.span.start_seconds, caption.span.end_seconds)
            if self._catalog.extend_caption(self._said.row, caption.span.end_seconds):
                return  # it is gone where its segment was pruned: then it is written anew
        segment = self._segments.get(caption.window)
        if segment is None:
            return
        record = CaptionRecord(self.video_id, caption.model, caption.text, caption.span, caption.confidence)
        self._said = _Said(self._catalog.add_caption(segment, record), caption.span)

    # -- now and then --------------------------------------------------------------------------------------------------

    def beat(self, clock: float, force: bool = False) -> bool:
        """Say that the stream lives, prune what is too old; True where somebody asked the stream to stop.

        Args:
            clock: monotonic seconds.
        """
        if not force and clock - self._beaten < _HEARTBEAT_SECONDS:
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
        if hours and (oldest := self._until - hours * 3600) > 0:
            self._catalog.prune_stream(self.video_id, oldest)
        recorded = _files_of(self._recordings)
        if hours and recorded:
            limit = self._now().timestamp() - hours * 3600
            recorded = _delete(recorded, lambda file: file.stat().st_mtime < limit)
        if size:
            held = self._catalog.stream_bytes(self.video_id)
            of_files = sum(file.stat().st_size for file in recorded)
            # Pictures to play go before what is needed to find anything.
            while recorded[:-1] and held + of_files > size:
                of_files -= recorded[0].stat().st_size
                recorded.pop(0).unlink(missing_ok=True)
            if held + of_files > size:
                self._catalog.prune_stream_to(self.video_id, max(0, size - of_files))

    def close(self, error: BaseException | None = None) -> None:
        """The stream is over: its files are finished, its end is written down."""
        for file in self._files:
            file.close()
        self.state = LiveState.ENDED if error is None else LiveState.FAILED
        self._end_connection(self.reason or self.state.value)
        self._catalog.end_stream(self.video_id, self.state, error, asdict(self.counts))


def _files_of(folder: Path | None) -> list[Path]:
    """The recorded files, the oldest first."""
    if folder is None or not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.is_file()), key=lambda file: file.stat().st_mtime)


def _delete(files: list[Path], when: Callable[[Path], bool]) -> list[Path]:
    """Delete files from the front while ``when`` holds, never the newest; those that are left."""
    while files[:-1] and when(files[0]):
        files.pop(0).unlink(missing_ok=True)
    return files
