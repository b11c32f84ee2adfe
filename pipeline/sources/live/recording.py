"""Keeps the compressed video of a live stream: packets go into Matroska files as they came, nothing is encoded again.

Matroska takes every codec that cameras have, and each of its clusters is whole by itself: after SIGKILL a file plays up
to its last second or so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.live.types import Connection
from pipeline.sources.live.unwrapping import Unwrapper

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

__all__ = ["Recorder", "Recording", "find_recording", "recordings"]

_NAME = re.compile(r"(\d{8}T\d{6})\.(\d{3})Z_(\d+\.\d{3})s\.mkv")
_OPTIONS = {"cluster_time_limit": "1000", "flush_packets": "1"}


class Recorder:
    """Writes one stream's packets to files in ``folder``, each named after the UTC and media time of its beginning.

    What cannot be written costs the recording, never the stream: it is told to ``note``, and tried again with the next
    file.

    Args:
        record_seconds: a file is closed at the first key frame after so long.
    """

    def __init__(
        self, folder: str | os.PathLike[str], record_seconds: float, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self._folder = Path(folder)
        self._record_seconds = record_seconds
        self._note = note
        self._streams: list[Any] = []
        self._connection: Connection | None = None
        self._zero = 0.0
        self._output: OutputContainer | None = None
        self._tracks: dict[int, Any] = {}
        self._started = 0.0  # media time of the file under way
        self._shift = 0.0  # seconds that its packets are put earlier by
        self._last: dict[int, int] = {}
        self._failed_at: float | None = None
        self._unwrap: dict[int, Unwrapper] = {}

    def begin(self, streams: list[Any], connection: Connection, zero_seconds: float) -> None:
        """A connection begins: the next file does, at its next key frame.

        Args:
            streams: PyAV's, the video one first.
            zero_seconds: media time of a packet's time stamp of zero.
        """
        self._finish()
        if self._streams != streams:
            self._unwrap = {stream.index: Unwrapper(stream.time_base) for stream in streams}
            # The first packets of RTSP have no time stamps: they belong at the connection's beginning.
            base = streams[0].time_base
            self._unwrap[streams[0].index].seed(round((connection.start_seconds - zero_seconds) / base), 1)
        # Else it is the same source as before, whose time stamps may have wrapped around since it began.
        self._streams, self._connection, self._zero = streams, connection, zero_seconds
        self._failed_at = None

    def write(self, packet: Packet[Any]) -> None:
        """The next packet of any stream."""
        import av

        index = packet.stream.index
        if index not in self._unwrap or (packet.dts is None and index != self._streams[0].index):
            return
        dts = self._unwrap[index].to_continuous(packet.dts, packet.duration)
        pts = dts if packet.pts is None or packet.dts is None else dts + packet.pts - packet.dts
        base = packet.stream.time_base
        seconds = float(pts * base) + self._zero
        key = index == self._streams[0].index and packet.is_keyframe
        try:
            if key and (self._output is None or seconds - self._started >= self._record_seconds):
                if self._failed_at is not None and seconds - self._failed_at < self._record_seconds:
                    return
                self._open(seconds)
            if self._output is None:
                return
            self._mux(packet, index, dts, pts)
        except (OSError, av.error.FFmpegError, ValueError) as error:
            words = getattr(error, "strerror", None) or type(error).__name__
            self._note(f"not recorded from {seconds:.3f} s on: {words}")
            self._failed_at = seconds
            self._finish()  # what cannot be written can seldom be finished either

    def _open(self, seconds: float) -> None:
        import av

        self._close()
        assert self._connection is not None
        path = self._folder / _name_of(self._connection, seconds)
        self._output = av.open(str(path), "w", format="matroska", options=dict(_OPTIONS))
        self._tracks = {}
        for stream in self._streams:
            if stream.codec_context is None and stream is not self._streams[0]:
                continue
            self._tracks[stream.index] = self._output.add_stream_from_template(stream)
        self._output.metadata["creation_time"] = self._connection.utc_of(seconds).isoformat()
        self._started, self._shift = seconds, seconds - self._zero
        self._last = {}
        self._failed_at = None

    def _mux(self, packet: Packet[Any], index: int, dts: int, pts: int) -> None:
        assert self._output is not None
        track = self._tracks.get(index)
        if track is None:
            return
        shift = round(self._shift / packet.stream.time_base)
        dts, pts = dts - shift, pts - shift
        last = self._last.get(index)
        if last is not None and dts <= last:
            dts, pts = last + 1, max(pts, last + 1)  # Matroska wants them to rise
        if pts < 0:
            return  # sound from before the first picture
        self._last[index] = dts
        packet.dts, packet.pts = dts, pts
        packet.stream = track
        self._output.mux(packet)

    def end(self) -> None:
        """The connection is over: its last file is finished, and nothing of it is kept."""
        self._finish()
        self._streams, self._unwrap, self._tracks = [], {}, {}

    def _finish(self) -> None:
        import av

        try:
            self._close()
        except (OSError, av.error.FFmpegError) as error:
            self._note(f"a recording was not finished: {getattr(error, 'strerror', None) or type(error).__name__}")

    def _close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()


class Recording(NamedTuple):
    """A recorded file and the media time of its beginning."""

    path: Path
    start_seconds: float


def recordings(folder: str | os.PathLike[str]) -> list[Recording]:
    """The recorded files of a stream, in the order of their media time."""
    found = [(name, _NAME.fullmatch(name.name)) for name in Path(folder).iterdir()]
    return sorted((Recording(p, float(m.group(3))) for p, m in found if m is not None), key=lambda r: r.start_seconds)


def find_recording(folder: str | os.PathLike[str], seconds: float) -> tuple[Path, float] | None:
    """The file that was being written at a media time, and how far into it that is; None before the first one."""
    found = [recording for recording in recordings(folder) if recording.start_seconds <= seconds + 1e-3]
    return (found[-1].path, max(0.0, seconds - found[-1].start_seconds)) if found else None


def _name_of(connection: Connection, seconds: float) -> str:
    utc = connection.utc_of(seconds)
    return f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z_{max(0.0, seconds):013.3f}s.mkv"
