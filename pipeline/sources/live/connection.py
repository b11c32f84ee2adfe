"""One connection to a live source: opened, read and decoded with PyAV, until it ends or breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.errors import SourceError, StreamCodec, StreamEnded, StreamTimeout
from pipeline.media import Damage
from pipeline.sources.live.contents import check_format, chosen_stream, described, leave_out_the_rest
from pipeline.sources.live.failures import opening_error
from pipeline.sources.live.holding import HeldPackets
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.kinds import KINDS, Kind, kind_of, patience_seconds, shown
from pipeline.sources.live.options import LiveOptions
from pipeline.sources.live.packets import PacketReader
from pipeline.sources.live.repeats import Repeats
from pipeline.sources.live.unwrapping import Unwrapper
from pipeline.sources.pending import PendingFrame, Renderer

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

    from pipeline.sources.live.feeds import Feed

__all__ = ["TIME_BASE", "LiveConnection", "open_live"]

TIME_BASE = Fraction(1, 1_000_000)
_SHORT_SECONDS = 2.0  # that the container's length may be wrong by
_UNSTAMPED = 8  # pictures without a time stamp at the beginning, at most


class LiveConnection:
    """An open live source that has given its first picture. A context manager; of one thread, apart from its frames.

    Attributes:
        info: what the source is; another object after the picture's size changed.
        damage: what was lost so far.
        backlog_seconds: by so much the first picture was older than the newest one when it was given.
    """

    def __init__(
        self, url: str, options: LiveOptions, short_side: int | None, interrupt: Interrupt, repeats: Repeats
    ) -> None:
        self.url = url
        self.kind: Kind = KINDS[kind_of(url)]
        self.damage = Damage()
        self._options, self._short_side, self._interrupt = options, short_side, interrupt
        self._read_seconds = patience_seconds(url, options)
        self._repeats = repeats
        self._held, self._recorded = HeldPackets(), False
        self._container: InputContainer | None = None
        self._feed: Feed | None = None
        self._packets: PacketReader | None = None
        self._last_pts, self._last_length = 0, 40_000
        self._shape: tuple[object, ...] | None = None
        self._aspect: Fraction | None = None  # of the first picture's samples, as its codec has it
        self._walk: Generator[VideoFrame, None, None] | None = None
        self._marred: list[VideoFrame] = []  # pictures of damaged packets
        self._deadline: float | None = None
        try:
            self._opened()
        except BaseException:
            self.close()
            raise

    # -- opening -------------------------------------------------------------------------------------------------------

    def _opened(self) -> None:
        import av

        options = self._options
        opening = self.kind.open(self.url, options, self._interrupt)
        self._feed = opening.feed
        failed: SourceError | None = None
        began = time.monotonic()
        try:
            self._container = av.open(
                opening.feed if opening.feed is not None else opening.address,
                "r",
                format=opening.format,
                options=opening.options,
                metadata_errors="replace",
                # A feed keeps its own time, and knows better what it means.
                timeout=(options.open_seconds, self._read_seconds if opening.feed is None else None),
            )
        except av.error.FFmpegError as error:
            failed = opening_error(error, self.url, options.open_seconds, time.monotonic() - began)
        except SourceError as error:
            failed = error
        took = time.monotonic() - began
        if failed is None and opening.feed is None and took >= options.open_seconds:
            # FFmpeg was interrupted while it looked what there is: it says nothing of that, and gives little more.
            failed = StreamTimeout(f"{shown(self.url)}: no answer within {options.open_seconds:g} s")
        if failed is not None:
            # Raised out here, so that it does not carry FFmpeg's error, whose words hold the password.
            raise self._feed.error if self._feed is not None and self._feed.error is not None else failed
        assert self._container is not None
        check_format(self._container, self.url)
        self._stream = chosen_stream(self._container, self.url)
        self._sound = self._container.streams.best("audio", related=self._stream)
        leave_out_the_rest(self._container, (self._stream, self._sound))
        context: Any = self._stream.codec_context
        context.thread_type = "SLICE"
        context.thread_count = options.threads
        self._time_base = Fraction(self._stream.time_base or Fraction(1, 90_000))
        self._unwrap = Unwrapper(self._time_base)
        self._deadline = time.monotonic() + options.open_seconds
        self._packets = PacketReader(
            self._container, self._feed, self.url, self._read_seconds, self._interrupt, self.damage
        )
        self._repeats.begin()
        self._walk = self._pictures(self._packets)
        first = next(self._walk, None)
        if first is None:
            raise self._no_picture()
        self._first = [first]
        self._origin = self._begun()
        self._deadline = None
        self.damage.decode_errors = 0  # before the first key picture there is nothing to lose
        self.damage.messages.clear()
        told = self.kind.clocked and not (self.is_whole or self.unpaced)
        self.backlog_seconds = self._read_ahead() if told else 0.0
        self._adapt(first)

    def _begun(self) -> int:
        """The time stamp of the first picture. RTSP gives it none: then the next ones tell, and are kept for later."""
        first = self._first
        assert self._walk is not None
        while _stamp(first[-1]) is None and len(first) < _UNSTAMPED and (picture := next(self._walk, None)) is not None:
            first.append(picture)
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        length = first[0].duration or max(1, round(1 / (rate * self._time_base)))
        stamp = _stamp(first[-1])
        origin = 0 if stamp is None else stamp - (len(first) - 1) * length
        self._unwrap.seed(origin, length)
        return origin

    def _no_picture(self) -> SourceError:
        name, packets = self._stream.codec_context.name, self._packets
        if packets is None or not packets.count:
            return StreamEnded(f"{shown(self.url)}: it ended before its first picture")
        if self._repeats.left_out:
            return StreamEnded(f"{shown(self.url)}: the playlist ends with what has been seen")
        return StreamCodec(
            f"{shown(self.url)}: not one picture could be decoded ({name}, {packets.count} packets, "
            f"{self.damage.decode_errors} errors)"
        )

    @property
    def is_whole(self) -> bool:
        """All of it is there already, as a film on a server: it has a length, and is read as slowly as one likes."""
        assert self._container is not None
        known = bool(self._container.duration) or (self._container.size > 0 and not self.is_playlist)
        return self.kind.live and self.url.lower().startswith("http") and known

    @property
    def ends(self) -> bool:
        """Where it ends, the stream is over; of the others nobody can tell an end from an outage."""
        return self.kind.ends or self.is_whole

    @property
    def waits(self) -> bool:
        """Nothing is lost while nobody reads."""
        return not self.kind.live or self.is_whole

    @property
    def is_playlist(self) -> bool:
        """It is HLS: an open playlist that is opened again when it has been closed begins at its beginning."""
        assert self._container is not None
        return self._container.format.name == "hls"

    @property
    def unpaced(self) -> bool:
        """It gives frames as fast as it can make them: a drawn picture has no clock."""
        return self.url.startswith("device:lavfi:")

    @property
    def streams(self) -> list[Any]:
        """PyAV's streams, for a recorder: the video one, and that of its sound where there is one."""
        return [self._stream] if self._sound is None else [self._stream, self._sound]

    @property
    def origin_seconds(self) -> float:
        """Time stamp of the first picture, as in the packets."""
        return float(self._origin * self._time_base)

    # -- frames --------------------------------------------------------------------------------------------------------

    def record_to(self, write: Callable[[Packet[Any]], None] | None) -> None:
        """Give every packet to ``write`` as well, also those read so far; None: to nobody. Before :meth:`frames`.

        A key packet comes after its frame was given, so that whoever learns something from the frame can tell where
        the packet belongs.
        """
        self._recorded = True
        self._held.hand_to(write)

    def frames(self) -> Iterator[PendingFrame]:
        """The frames to the end, once; ``pts`` in microseconds from the first one, wrap-arounds undone, else untouched.

        A frame's duration is a guess by what came before: nobody waits for the next one.

        Raises:
            StreamTimeout: no video came for twice the stall time.
            StreamEnded: it broke off.
        """
        if not self._recorded:
            self.record_to(None)
        yield from map(self._frame, self._first)
        self._first.clear()
        assert self._walk is not None
        for picture in self._walk:
            yield self._frame(picture)
        if self.is_whole and self._container is not None and self._container.duration:
            length, got = self._container.duration / 1e6, (self._last_pts + self._last_length) / 1e6
            if got < 0.95 * length - _SHORT_SECONDS:
                raise StreamEnded(f"{shown(self.url)}: broke off after {got:.1f} of {length:.1f} s")

    def _frame(self, picture: VideoFrame) -> PendingFrame:
        if self._shape_of(picture) != self._shape:
            self._adapt(picture)
        pts = round((self._unwrapped(picture) - self._origin) * self._time_base / TIME_BASE)
        length = pts - self._last_pts
        if picture.duration:
            length = round(picture.duration * self._time_base / TIME_BASE)
        if 0 < length <= 10_000_000:
            self._last_length = length
        self._last_pts = pts
        corrupt = bool(picture.is_corrupt) or any(marred is picture for marred in self._marred)
        self._marred = [marred for marred in self._marred if marred is not picture]
        if corrupt:
            self.damage.corrupt_frames += 1
        return PendingFrame(
            self._renderer, picture, pts, self._last_length, TIME_BASE, bool(picture.key_frame), corrupt
        )

    def _unwrapped(self, picture: VideoFrame) -> int:
        return self._unwrap.to_continuous(_stamp(picture), picture.duration)

    def _adapt(self, picture: VideoFrame) -> None:
        """The picture has another format than the one before: say so, and scale anew."""
        self._shape = self._shape_of(picture)
        coded = Fraction(self._stream.codec_context.sample_aspect_ratio or 0)
        self._aspect = coded if self._aspect is None else self._aspect
        # The container's word counts, until the codec's own changes in the middle of the stream.
        aspect = coded if coded != self._aspect else Fraction(self._stream.sample_aspect_ratio or coded)
        assert self._container is not None
        self.info = described(self.url, self._container, self._stream, picture, aspect, TIME_BASE)
        if self.info.average_fps:
            self._last_length = round(1e6 / self.info.average_fps)
        self._renderer = Renderer(self.info, self._short_side)

    def _shape_of(self, picture: VideoFrame) -> tuple[object, ...]:
        """What frames of one format have in common: width, height, rotation, form of the samples."""
        context: Any = self._stream.codec_context
        return picture.width, picture.height, picture.rotation % 360, context.sample_aspect_ratio

    # -- packets to pictures -------------------------------------------------------------------------------------------

    def _pictures(self, packets: PacketReader) -> Generator[VideoFrame, None, None]:
        last_picture = time.monotonic()
        walk, broken = iter(packets), None
        try:
            while broken is None:
                try:
                    if (packet := next(walk, None)) is None:
                        return
                except SourceError as error:
                    if self._deadline is not None:
                        raise
                    packet, broken = None, error  # what the decoder has kept back comes first
                pictures = self._decoded(packet)
                if packet is not None and packet.size:  # PyAV's own flushing packets are empty
                    self._held.add(packet, video=packet.stream is self._stream)
                for picture in pictures:
                    if not picture.width or not picture.height:
                        raise StreamCodec(f"{shown(self.url)}: its pictures have no size")
                    if self.is_playlist and not self._repeats.is_new(_stamp(picture)):
                        self._held.forget(picture)
                        continue
                    yield picture
                    self._held.seen(picture)
                now = time.monotonic()
                if pictures:
                    last_picture = now
                elif broken is None:
                    self._check_late(now, last_picture, packets.count)
        finally:
            self._held.flush()
        raise broken

    def _decoded(self, packet: Packet[Any] | None) -> list[VideoFrame]:
        """The pictures that come of a packet; without one, those that the decoder has kept back for their order."""
        import av

        if packet is not None and packet.stream is not self._stream:
            return []
        if packet is not None and packet.is_keyframe and self.is_playlist:
            self._repeats.key(packet)
        pictures: list[VideoFrame] = []
        try:
            pictures = list(self._stream.decode(packet))
        except av.error.EOFError:
            pass
        except av.error.FFmpegError as error:
            self.damage.decode_errors += 1
            self.damage.note(f"decoding error: {error.strerror or type(error).__name__}")
        if packet is not None and packet.is_corrupt:
            # The decoder conceals it, and says so only sometimes.
            self.damage.note("packets came damaged, or some before them were lost")
            self._marred.extend(pictures)
            self.damage.decode_errors += not pictures
        return pictures

    def _check_late(self, now: float, last_picture: float, count: int) -> None:
        """Packets come; see whether pictures should have."""
        if self._deadline is None:
            if now - last_picture > self._read_seconds:
                raise StreamTimeout(f"{shown(self.url)}: no picture for {self._read_seconds:g} s, though data comes")
        elif now > self._deadline and not self._repeats.left_out:
            raise StreamCodec(
                f"{shown(self.url)}: {count} packets within {self._options.open_seconds:g} s, and not one picture "
                f"could be decoded ({self._stream.codec_context.name}, {self.damage.decode_errors} errors)"
            )

    def _read_ahead(self) -> float:
        """Seconds of video that had come already when the first picture was decoded: by so much it is old."""
        newest = self._origin

        def seen(packet: Packet[Any]) -> None:
            nonlocal newest
            if packet.stream is self._stream and packet.pts is not None:
                newest = max(newest, self._unwrap.peek(packet.pts))

        assert self._packets is not None
        self._packets.read_ahead(seen)
        return float((newest - self._origin) * self._time_base)

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the connection. May be called more than once."""
        if self._walk is not None:
            self._walk.close()  # it and we hold each other, and the decoder with its threads
            self._walk = None
        if self._packets is not None:
            self._packets.close()
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._feed is not None:
            self._feed.close()

    def __enter__(self) -> LiveConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_live(
    url: str,
    options: LiveOptions | None = None,
    *,
    short_side: int | None = None,
    interrupt: Interrupt | None = None,
    repeats: Repeats | None = None,
) -> LiveConnection:
    """Connect to a live source and wait for its first picture.

    Args:
        url: see :data:`pipeline.sources.live.KINDS`.
        short_side: pixels of the frames' short side; None keeps the display size.
        interrupt: ends whatever it waits for, in the thread that has entered it.
        repeats: what the stream's connections before this one have given, which a playlist gives again.

    Raises:
        UnknownScheme, StreamRefused, StreamUnauthorised, StreamNotFound, StreamTimeout: there is no connection.
        NotAStream, NoVideoStream, StreamCodec, StillImage: there is, and no video comes of it.
        StreamEnded: it was over before it began.
        SourceNotFound, SourceUnreadable: of a file.
    """
    return LiveConnection(url, options or LiveOptions(), short_side, interrupt or Interrupt(), repeats or Repeats())


def _stamp(picture: VideoFrame) -> int | None:
    return picture.pts if picture.pts is not None else picture.dts
