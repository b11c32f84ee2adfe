"""The packets of an open live container: what the demuxer stumbles over is passed over, what fails has a type."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import SourceError, StreamTimeout
from pipeline.media import Damage
from pipeline.sources.live.failures import reading_error
from pipeline.sources.live.interrupt import Interrupt
from pipeline.sources.live.kinds import shown

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet

    from pipeline.sources.live.feeds import Feed

__all__ = ["PacketReader"]

_BAD_IN_A_ROW = 64  # that the demuxer may not make out before the stream is given up
_AGAIN_SECONDS = 0.01
_AHEAD_PACKETS, _AHEAD_BYTES, _AHEAD_SECONDS = 2048, 16 * 1024 * 1024, 2.0
_BLOCKED_SECONDS = 0.004  # a read that takes longer had to wait: everything that had come before is read


class PacketReader:
    """Packets of all streams: those of sound are a sign of life, and may be recorded.

    Attributes:
        count: packets so far.
    """

    def __init__(
        self,
        container: InputContainer,
        feed: Feed | None,
        url: str,
        read_seconds: float,
        interrupt: Interrupt,
        damage: Damage,
    ) -> None:
        self.count = 0
        self._container, self._feed, self._url = container, feed, url
        self._read_seconds, self._interrupt, self._damage = read_seconds, interrupt, damage
        self._demuxer: Any = None
        self._ahead: deque[Packet[Any]] = deque()
        self._broken: SourceError | None = None  # what comes after those

    def __iter__(self) -> Iterator[Packet[Any]]:
        """To the end, PyAV's empty flushing packets included.

        Raises:
            StreamTimeout: nothing came.
            StreamEnded: it broke off.
        """
        while True:
            if self._ahead:
                yield self._ahead.popleft()
                continue
            if self._broken is not None:
                raise self._broken
            packet = self._next()
            if packet is None:
                if self._feed is not None and self._feed.error is not None:
                    raise self._feed.error
                return
            yield packet

    def read_ahead(self, seen: Callable[[Packet[Any]], None]) -> None:
        """Read what has come already, until a read has to wait; it is given out before anything else."""
        began = time.monotonic()
        size = 0
        while len(self._ahead) < _AHEAD_PACKETS and size < _AHEAD_BYTES:
            before = time.monotonic()
            try:
                packet = self._next()
            except SourceError as error:
                self._broken = error
                return
            if packet is None:
                return
            self._ahead.append(packet)
            size += packet.size
            seen(packet)
            now = time.monotonic()
            if now - before > _BLOCKED_SECONDS or now - began > _AHEAD_SECONDS:
                return

    def _next(self) -> Packet[Any] | None:
        """The next packet; None after the last one."""
        import av

        began = time.monotonic()
        bad = 0
        while True:
            if self._demuxer is None:
                self._demuxer = self._container.demux()
            failed: SourceError | None = None
            try:
                packet: Packet[Any] | None = next(self._demuxer, None)
                if packet is not None and packet.size:
                    self.count += 1
                return packet
            except av.error.BlockingIOError:
                if self._interrupt.wait(_AGAIN_SECONDS) or time.monotonic() - began > self._read_seconds:
                    failed = StreamTimeout(f"{shown(self._url)}: nothing came for {self._read_seconds:g} s")
            except av.error.InvalidDataError as error:
                bad += 1
                self._damage.decode_errors += 1
                self._damage.note("the demuxer met data that it could not make out")
                if bad >= _BAD_IN_A_ROW:
                    failed = reading_error(error, self._url, self._read_seconds)
            except av.error.FFmpegError as error:
                failed = reading_error(error, self._url, self._read_seconds)
            except SourceError as error:
                failed = error
            self._demuxer = None
            if failed is not None:
                # Raised out here, so that it does not carry FFmpeg's error, whose words hold the password.
                raise self._feed.error if self._feed is not None and self._feed.error is not None else failed

    def close(self) -> None:
        if self._demuxer is not None:
            self._demuxer.close()
            self._demuxer = None
