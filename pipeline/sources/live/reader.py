"""The thread that keeps a stream connected: connects, decodes, puts frames where they lie in media time, and comes back
after an outage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pipeline.errors import (
    LongreelError,
    NotAStream,
    NoVideoStream,
    SourceError,
    SourceNotFound,
    SourceUnreadable,
    StillImage,
    StreamCodec,
    StreamEnded,
    StreamUnauthorised,
    UnexpectedError,
    UnknownScheme,
)
from pipeline.live.types import Connection, LiveState, StreamCounts
from pipeline.media import Frame, MediaInfo
from pipeline.sources.live.connection import LiveConnection, open_live
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.kinds import KINDS, kind_of, patience_seconds, shown
from pipeline.sources.live.messages import StateChange
from pipeline.sources.live.options import LiveOptions
from pipeline.sources.live.recording import Recorder
from pipeline.sources.live.repeats import Repeats
from pipeline.sources.live.timeline import Timeline
from pipeline.sources.live.waiting import FrameQueue
from pipeline.sources.redact import redact_text

__all__ = ["Over", "Reader", "ReaderParts", "note"]

# No further try can mend these before the stream has ever played. Afterwards a proxy may show a page for a while, and a
# camera that starts may not know its stream yet. Only a password is never tried twice: cameras lock who guesses.
_HOPELESS = (UnknownScheme, NotAStream, NoVideoStream, StillImage, StreamCodec, SourceNotFound, SourceUnreadable)
_JITTER = 0.2
_GRACE_SECONDS = 5.0  # after a timeout of FFmpeg's should have ended a call
_LEAST_FRAMES = 4
# A playlist's pieces come at once and play for seconds. The next one is waited for half as long again, because the
# playlist is looked at only twice in the time of a piece.
_PIECE_SECONDS, _PIECE_SPARE = 0.5, 1.5
_MESSAGES = 20


@dataclass(frozen=True)
class Over:
    """The reader is at its end; ``error`` where the stream failed."""

    state: LiveState
    reason: str
    error: BaseException | None = None


@dataclass
class ReaderParts:
    """What a reader works with. Where it hangs in a driver the next one gets a copy, with a recorder of its own."""

    url: str
    options: LiveOptions
    short_side: int | None
    queue: FrameQueue[StateChange | Connection | Over]
    timeline: Timeline
    counts: StreamCounts
    recorder: Recorder | None
    wants: Callable[[Frame], bool] | None
    clock: Callable[[], datetime]
    sleep: Callable[[float], object] | None
    random: Callable[[], float]
    played: bool = False  # ever, also in an earlier run
    failures: int = 0  # in a row
    pause: float = 0.0
    repeats: Repeats = field(default_factory=Repeats)


class Reader(threading.Thread):
    """Watches one stream until it is over or :attr:`interrupt` is set.

    Attributes:
        due: by when (monotonic) it must have moved, None while it may take as long as it likes.
        last_frame: when (monotonic) the last frame came, or is due to be shown where a piece of a playlist brought many
            at once; None while there is no connection.
    """

    def __init__(self, parts: ReaderParts, *, reason: str | None = None) -> None:
        super().__init__(name=f"live {shown(parts.url)}", daemon=True)
        self._parts = parts
        self.interrupt = Interrupt()
        self.due: float | None = None
        self.last_frame: float | None = None
        self._kind = KINDS[kind_of(parts.url)]
        self._lost: str | None = reason  # why the connection before was lost
        self._patience = patience_seconds(parts.url, parts.options)
        self._whole = False  # it is a film on a server, which would begin anew
        self._open_playlist = False  # there was a playlist to which more was to come

    def run(self) -> None:
        with self.interrupt:
            try:
                over = self._watch()
            except LongreelError as error:
                over = Over(LiveState.FAILED, str(error), error)
            except Exception as error:  # noqa: BLE001 - raised again where the messages are read
                words = redact_text(f"{type(error).__name__}: {error}", self._parts.url)
                unforeseen = UnexpectedError(f"{shown(self._parts.url)}: {words}")
                over = Over(LiveState.FAILED, str(unforeseen), unforeseen)
        self.due = self.last_frame = None
        self._put(over)

    def _put(self, item: StateChange | Connection | Over | Frame) -> bool:
        """A reader that was given up says nothing more."""
        if self.interrupt.is_set():
            return False
        self.due = None
        return self._parts.queue.put(item)

    def _state(self, state: LiveState, reason: str = "") -> None:
        self._put(StateChange(state, reason, self._parts.clock()))

    # -- connections ---------------------------------------------------------------------------------------------------

    def _watch(self) -> Over:
        parts, options = self._parts, self._parts.options
        if self._lost is None:
            self._state(LiveState.CONNECTING)
        while not self.interrupt.is_set():
            began = time.monotonic()
            error, ended = self._connected()
            if self.interrupt.is_set():
                break
            if ended:
                return Over(LiveState.ENDED, "the stream came to its end")
            assert error is not None
            if time.monotonic() - began > options.stall_seconds and parts.failures == 0:
                parts.pause = 0.0
            parts.failures += 1
            self._give_up(error)
            if parts.played and not options.reconnect:
                return Over(LiveState.ENDED, str(error))
            self._lost = self._lost or str(error)
            parts.pause = min(max(options.backoff_seconds, 2 * parts.pause), options.backoff_max_seconds)
            pause = parts.pause * (1 - _JITTER + 2 * _JITTER * parts.random())
            self._state(LiveState.RECONNECTING, f"{error}; again in {pause:.1f} s")
            (parts.sleep or self.interrupt.wait)(pause)
        return Over(LiveState.ENDED, "stopped")

    def _give_up(self, error: SourceError) -> None:
        """Raise the error where no further try is to be made."""
        parts, options = self._parts, self._parts.options
        if isinstance(error, StreamUnauthorised):
            raise error
        if not parts.played:
            if isinstance(error, _HOPELESS) or not options.reconnect:
                raise error
            if options.first_attempts and parts.failures >= options.first_attempts:
                raise error
        elif (
            not self._kind.reconnects
            or self._whole
            or (options.max_attempts and parts.failures >= options.max_attempts)
        ):
            raise error

    def _connected(self) -> tuple[SourceError | None, bool]:
        """One connection, from its beginning to its end: why it was lost, and whether that was the stream's end."""
        parts, options = self._parts, self._parts.options
        # Looked up, opened, looked into, read up to the first picture.
        self.due = time.monotonic() + 4 * options.open_seconds + 2 * self._patience + _GRACE_SECONDS
        try:
            with open_live(
                parts.url, options, short_side=parts.short_side, interrupt=self.interrupt, repeats=parts.repeats
            ) as connection:
                if self._open_playlist and connection.is_whole:
                    return None, True  # the playlist was closed meanwhile: all of it has been seen
                self._whole = connection.is_whole
                self._open_playlist = connection.is_playlist and not self._whole
                try:
                    self._play(connection)
                finally:
                    self._account(connection)
                ended = connection.ends
            return (None, True) if ended else (StreamEnded(f"{shown(parts.url)}: the server closed the stream"), False)
        except SourceError as error:
            # Its trace would hold the connection with its decoder, a hundred megabytes, until Python looks for rings.
            return error.with_traceback(None), False
        finally:
            self.last_frame = None
            self._note_repeats()
            if parts.recorder is not None:
                parts.recorder.end()

    # -- frames --------------------------------------------------------------------------------------------------------

    def _play(self, connection: LiveConnection) -> None:
        """Every frame of a connection, put where it lies in media time."""
        parts, options = self._parts, self._parts.options
        if self.interrupt.is_set():
            return  # it took so long that another has taken its place
        timeline, info = parts.timeline, connection.info
        parts.queue.policy = "wait" if connection.waits and not options.realtime else options.policy
        parts.queue.capacity = _capacity(options, info)
        paced = options.realtime if not self._kind.live else connection.unpaced
        piece = base = (time.monotonic(), 0)  # a moment, and the time stamp of the frame that belongs there
        utc = parts.clock() - timedelta(seconds=connection.backlog_seconds)
        self._began(timeline.end_seconds, timeline.begin(0, utc, info, self._lost), connection, 0)
        self._lost = None
        if parts.recorder is not None:
            connection.record_to(parts.recorder.write)
        self._state(LiveState.PLAYING)
        self._note_repeats()
        parts.played, parts.failures = True, 0
        arrived = piece[0]
        for frame in connection.frames():
            at = time.monotonic()
            if self.interrupt.is_set():
                return
            if timeline.jumps(frame.pts, at, live=not connection.waits):
                end, base = timeline.end_seconds, (at, frame.pts)
                self._began(
                    end, timeline.begin(frame.pts, parts.clock(), connection.info, "clock"), connection, frame.pts
                )
            elif connection.info is not info:
                end = timeline.end_seconds
                reshaped = timeline.reshape(frame.pts, connection.info, "format")
                self._began(end, reshaped, connection, frame.pts)
                parts.queue.capacity = _capacity(options, connection.info)
            info = connection.info
            if paced:
                self.due = None
                self.interrupt.wait(base[0] + (frame.pts - base[1]) / 1e6 - at)
            pts, duration = timeline.place(frame.pts, frame.duration, at)
            parts.counts.frames_received += 1
            if connection.is_playlist:
                piece = piece if at - arrived < _PIECE_SECONDS else (at, frame.pts)
                self.last_frame = max(at, piece[0] + _PIECE_SPARE * (frame.pts - piece[1]) / 1e6)
            else:
                self.last_frame = time.monotonic()
            arrived = at
            placed = frame.at(pts, duration)
            if parts.wants is None or parts.wants(placed):
                self._put(placed)
                parts.counts.frames_dropped = parts.queue.dropped
            self._account(connection)
            self.due = time.monotonic() + self._patience + _GRACE_SECONDS

    def _began(self, end_seconds: float, begun: Connection, connection: LiveConnection, own: int) -> None:
        parts = self._parts
        parts.counts.connections += 1
        if end_seconds > 0:
            parts.counts.gap_seconds += max(0.0, begun.start_seconds - end_seconds)
        if parts.recorder is not None:
            zero = begun.start_seconds - own / 1e6 - connection.origin_seconds
            parts.recorder.begin(connection.streams, begun, zero)
        self._put(begun)

    def _note_repeats(self) -> None:
        if self._parts.repeats.left_out:
            note(self._parts.counts, "a playlist gave again what had been seen; it was left out")

    def _account(self, connection: LiveConnection) -> None:
        """Carry over what the connection has counted since the last time."""
        counts, damage = self._parts.counts, connection.damage
        corrupt, errors = damage.corrupt_frames, damage.decode_errors
        counts.corrupt_frames += corrupt
        counts.decode_errors += errors
        damage.corrupt_frames = damage.decode_errors = 0
        for message in damage.messages:
            note(counts, message)
        damage.messages.clear()


def note(counts: StreamCounts, message: str) -> None:
    """Keep a message once, and only the last ones."""
    if message not in counts.messages:
        counts.messages = [*counts.messages, message][-_MESSAGES:]


def _capacity(options: LiveOptions, info: MediaInfo) -> int:
    """Frames that may wait: pictures of 4:2:0 colour take one and a half bytes a pixel."""
    by_size = options.queue_bytes // max(1, info.width * info.height * 3 // 2)
    return max(1, min(options.queue_frames, max(_LEAST_FRAMES, by_size)))
