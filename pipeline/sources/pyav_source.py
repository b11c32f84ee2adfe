"""A source that decodes with PyAV: seeks by time stamp, takes every container FFmpeg reads, says what it lost."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import MediaDamaged, MediaUnreadable
from pipeline.isolation import beat
from pipeline.media import Damage, Frame, MediaInfo, Span, to_seconds
from pipeline.sources.base import Source, decode_threads
from pipeline.sources.pending import PendingFrame, Renderer
from pipeline.sources.probe import open_container
from pipeline.sources.stamps import LossAccount, Stamper

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["PyAVSource"]

_BACK_OFF_SECONDS = (0.0, 2.0, 8.0, 32.0, 128.0)  # how far before the span to look for a key frame, in turn


class _ThreadsHideError(Exception):
    """A decoding error met with frame threads: frames around it may be missing, so they are decoded again without."""


class PyAVSource(Source):
    """Decodes one video stream of a local file with PyAV.

    Frame threads are used until the first decoding error; from then on the rest is decoded without them, because with
    them FFmpeg drops good frames beside a bad one.
    """

    def __init__(self, path: str, info: MediaInfo, *, short_side: int | None, threads: int, reason: str) -> None:
        self.info = info
        self.damage = Damage()
        self._path = path
        self._reason = reason
        self._renderer = Renderer(info, short_side)
        self._threads = decode_threads(threads)
        self._threaded = self._threads > 1
        self._container: InputContainer | None = None
        if any(note.startswith("truncated") for note in info.notes):
            self._threaded = False  # an error is certain to come

    @property
    def decoder(self) -> str:
        return "pyav"

    @property
    def decoder_reason(self) -> str:
        return self._reason

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        self.damage = Damage()
        last: int | None = None
        while True:
            self.damage.lost_seconds = 0.0
            try:
                for frame in self._pass(span, keyframes_only, last):
                    last = frame.pts
                    yield frame
                return
            except _ThreadsHideError:
                # The frames up to `last` were delivered; the next pass starts again before them and skips them.
                self._threaded = False

    def _pass(self, span: Span | None, keyframes_only: bool, after: int | None) -> Iterator[Frame]:
        """One walk over the span's frames, those with ``pts > after`` only."""
        held: tuple[VideoFrame, int, bool] | None = None
        given = 0
        loss = LossAccount(self.info, span)
        end = None if span is None else span.end_seconds
        time_base = self.info.time_base
        corrupt_before = self.damage.corrupt_frames
        finished = False
        for picture, pts, key in self._decoded(span, keyframes_only, loss, after):
            if held is not None:
                given += 1
                yield self._frame(held, max(1, pts - held[1]))
                held = None
            seconds = to_seconds(pts, time_base)
            if end is not None and seconds >= end:
                finished = True
                break
            if (span is not None and seconds < span.start_seconds) or (after is not None and pts <= after):
                continue
            held = (picture, pts, key)
        if not finished:
            loss.ended()
        if held is not None:
            given += 1
            length = loss.packets_end - held[1] if keyframes_only else int(held[0].duration or self._average)
            yield self._frame(held, max(1, length))
        self.damage.lost_seconds = loss.lost_seconds
        if loss.lost_frames:
            self.damage.note(f"{loss.lost_frames} packets gave no frame")
        if self.damage.corrupt_frames > corrupt_before:
            self.damage.note("the decoder concealed errors in some frames")
        whole = span is None or span.start_seconds <= 0
        if whole and given == 0 and after is None and not finished:
            raise MediaUnreadable(f"{self._path}: not one frame could be decoded ({self.damage.decode_errors} errors)")

    def _frame(self, held: tuple[VideoFrame, int, bool], duration: int) -> Frame:
        picture, pts, key = held
        corrupt = bool(picture.is_corrupt)
        if corrupt:
            self.damage.corrupt_frames += 1
        return PendingFrame(self._renderer, picture, pts, duration, self.info.time_base, key, corrupt)

    # -- packets to pictures -------------------------------------------------------------------------------------------

    def _decoded(
        self, span: Span | None, keyframes_only: bool, loss: LossAccount, after: int | None
    ) -> Iterator[tuple[VideoFrame, int, bool]]:
        """Pictures with pts and whether they are key frames, from the key frame at or before the start of the span."""
        start = 0.0 if span is None else max(0.0, span.start_seconds)
        if after is not None:
            start = max(start, float(after * self.info.time_base))
        seekable = start > 0 and not self._untimed()
        offsets = [b for b in _BACK_OFF_SECONDS if b < start] if seekable else []
        for back_off in offsets:
            target = self.info.start_pts + int((start - back_off) / self.info.time_base)
            walk = self._walk(target, keyframes_only, loss)
            first = next(walk, None)
            if first is not None and float(first[1] * self.info.time_base) <= start:
                yield first
                yield from walk
                return
            walk.close()
            loss.restart()
        yield from self._walk(None, keyframes_only, loss)

    def _untimed(self) -> bool:
        return any(note.startswith("the stream has no time stamps") for note in self.info.notes)

    def _walk(
        self, target_pts: int | None, keyframes_only: bool, loss: LossAccount
    ) -> Generator[tuple[VideoFrame, int, bool], None, None]:
        import av

        # Without time stamps all frames are needed to know a key frame's time.
        keys_alone = keyframes_only and not self._untimed()
        container, stream = self._open(self._threaded and not keys_alone)
        stamper = Stamper(self.info, self.damage)
        self._average = stamper.average
        start_pts = self.info.start_pts
        waiting_for_key = target_pts is not None
        if target_pts is not None:
            try:
                container.seek(target_pts, stream=stream, backward=True, any_frame=False)
            except av.error.FFmpegError:
                return
        for packet in self._packets(container, stream):
            beat()
            if packet is not None and packet.pts is not None and not packet.is_discard:
                pts, length = packet.pts - start_pts, packet.duration or stamper.average
                if keys_alone and not packet.is_keyframe:
                    loss.reached(pts + length)
                else:
                    loss.packet(pts, length)
            if keys_alone:
                pictures = self._decode_alone(stream, packet)
            else:
                pictures = self._decode(stream, packet)
            for picture in pictures:
                if waiting_for_key and not picture.key_frame:
                    continue  # leading pictures that refer to what lies before the seek
                raw = picture.pts if picture.pts is not None else (None if self._untimed() else picture.dts)
                pts = stamper.stamp(raw, picture.duration)
                if waiting_for_key:
                    loss.frames_from(pts)
                    waiting_for_key = False
                loss.frame(pts)
                if picture.key_frame or not keyframes_only:
                    yield picture, pts, bool(picture.key_frame)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[Any] | None]:
        """The stream's packets, then None to drain the decoder. A demuxer error in the middle ends the packets."""
        import av

        try:
            for packet in container.demux(stream):
                if packet.size:  # PyAV's own flushing packet is empty; we flush ourselves
                    yield packet
        except av.error.FFmpegError as error:
            self.damage.decode_errors += 1
            self.damage.note(f"reading stopped: {error.strerror or error}")
        yield None

    def _decode(self, stream: VideoStream, packet: Packet[Any] | None) -> list[VideoFrame]:
        import av

        try:
            return list(stream.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            if self._threaded:
                raise _ThreadsHideError from error
            self.damage.decode_errors += 1
            self.damage.note(f"decoding error: {error.strerror or error}")
            return []

    def _decode_alone(self, stream: VideoStream, packet: Packet[Any] | None) -> list[VideoFrame]:
        """A key frame's packet decoded by itself, which costs no other frame and keeps key frames in order."""
        if packet is None or not packet.is_keyframe or packet.is_discard:
            return []
        pictures = self._decode(stream, packet) + self._decode(stream, None)
        stream.codec_context.flush_buffers()
        return pictures[:1]

    def _open(self, threaded: bool) -> tuple[InputContainer, VideoStream]:
        self.close()
        container = open_container(self._path)
        self._container = container
        stream: Any = container.streams[self.info.stream_index]
        if stream.type != "video":
            raise MediaDamaged(f"{self._path}: stream {self.info.stream_index} is no video stream any more")
        context: Any = stream.codec_context
        context.thread_type = "FRAME" if threaded else "NONE"
        context.thread_count = self._threads if threaded else 1
        return container, stream
