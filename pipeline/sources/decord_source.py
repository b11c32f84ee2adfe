"""A source that decodes with decord: whole files, read from their beginning.

decord gives pictures without their times, so the times come from the packets, read once with PyAV; the n-th picture is
the n-th packet in order of PTS. That holds only where every packet gives one picture, so a file that is irregular in
any way is refused with the reason, and whoever asked for "auto" goes on with PyAV.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import MediaDamaged, MediaUnreadable
from pipeline.isolation import beat, is_isolated, native_noise
from pipeline.media import Damage, Frame, MediaInfo, Span
from pipeline.sources.base import Source, decode_threads, picture_size
from pipeline.sources.probe import open_container
from pipeline.sources.stamps import LossAccount

__all__ = ["DecordSource"]

_DAMAGE_WORDS = re.compile(
    rb"error while decoding|concealing|Invalid NAL|corrupt|Error splitting|out of range at", re.I
)


class DecordSource(Source):
    """Decodes a local file with decord.

    decord decodes ahead without bound while the consumer waits, so memory is bounded only by the file's length; "auto"
    takes it for files that fit (``opening.DECORD_BYTES``).

    Raises:
        MediaUnreadable: decord cannot open the file, or its packets do not map to pictures one to one.
    """

    def __init__(self, path: str, info: MediaInfo, *, short_side: int | None, threads: int, reason: str) -> None:
        self.info = info
        self.damage = Damage()
        self._path = path
        self._reason = reason
        self._size = picture_size(info, short_side)
        self._threads = decode_threads(threads)
        self._pts, self._ends, self._keys = _packet_table(path, info)
        self._reader: Any = None
        self._position = 0  # number of the picture that the reader gives next
        self._noise = native_noise()
        self._open()

    @property
    def decoder(self) -> str:
        return "decord"

    @property
    def decoder_reason(self) -> str:
        return self._reason

    def close(self) -> None:
        self._reader = None  # decord frees the decoder when the last reference goes

    def _open(self) -> None:
        decord = _import_decord()
        self._position = 0
        width, height = self._size
        beat()
        try:
            # The tolerance makes decord raise at the first frame it would silently replace by the one before.
            self._reader = decord.VideoReader(
                self._path, decord.cpu(0), width=width, height=height, num_threads=self._threads, fault_tol=1e-9
            )
        except _errors() as error:
            raise MediaUnreadable(f"{self._path}: decord cannot open it: {_first_line(error)}") from error
        if len(self._reader) != len(self._pts):
            raise MediaUnreadable(
                f"{self._path}: decord counts {len(self._reader)} frames, the container has {len(self._pts)} packets"
            )

    def frames(self, span: Span | None = None, keyframes_only: bool = False) -> Iterator[Frame]:
        self.damage = Damage()
        wanted = np.ones(len(self._pts), dtype=bool)
        if span is not None:
            seconds = self._pts * float(self.info.time_base)
            near = np.flatnonzero((seconds >= span.start_seconds - 1) & (seconds < span.end_seconds + 1))
            wanted[:] = False
            for index in near:  # the exact comparison that Frame.pts_seconds makes
                wanted[index] = span.contains(float(int(self._pts[index]) * Fraction(self.info.time_base)))
        if keyframes_only:
            wanted &= self._keys
        numbers = np.flatnonzero(wanted)
        loss = LossAccount(self.info, span)
        loss.packet(int(self._pts[-1]), int(self._ends[-1] - self._pts[-1]))
        loss.frame(int(self._pts[-1]))
        loss.ended()
        self.damage.lost_seconds = loss.lost_seconds
        if not len(numbers):
            return
        if self._reader is None or self._position > 0:
            self._open()
        for count, number in enumerate(numbers.tolist()):
            image = self._picture(number)
            following = int(numbers[count + 1]) if keyframes_only and count + 1 < len(numbers) else number + 1
            yield Frame(
                image=image,
                pts=int(self._pts[number]),
                duration=self._duration(number, following, keyframes_only, count + 1 == len(numbers)),
                time_base=self.info.time_base,
                keyframe=bool(self._keys[number]),
            )

    def _duration(self, number: int, following: int, keyframes_only: bool, last: bool) -> int:
        if keyframes_only and last:  # reaches to the next key frame after the span, or to the end
            later = np.flatnonzero(self._keys[number + 1 :])
            following = number + 1 + int(later[0]) if len(later) else len(self._pts)
        if following < len(self._pts):
            return max(1, int(self._pts[following] - self._pts[number]))
        return max(1, int(self._ends[-1] - self._pts[number]))

    def _picture(self, number: int) -> npt.NDArray[np.uint8]:
        """The picture ``number``, by walking to it: decord's own skipping and seeking lose count near the end of a file
        and at open groups of pictures."""
        while self._position < number:
            self._next(self._reader, self._position)
            self._position += 1
        image = self._next(self._reader, number)
        self._position += 1
        return image

    def _next(self, reader: Any, number: int) -> npt.NDArray[np.uint8]:
        beat()
        at_seconds = float(int(self._pts[number]) * self.info.time_base)
        try:
            image: npt.NDArray[np.uint8] = reader.next().asnumpy()
        except StopIteration:
            raise MediaDamaged(
                f"{self._path}: decord ended at {at_seconds:.3f} s, after {number} of {len(self._pts)} frames"
            ) from None
        except _errors() as error:
            raise MediaDamaged(f"{self._path}: decord gave up at {at_seconds:.3f} s: {_first_line(error)}") from error
        width, height = self._size
        if image.shape != (height, width, 3):
            # decord counts channels by the padded length of a row: pictures 32, 48 or 96 wide come out mangled.
            raise MediaUnreadable(
                f"{self._path}: decord gives pictures of shape {image.shape}, ({height}, {width}, 3) was asked for"
            )
        if self._noise is not None:
            found = _DAMAGE_WORDS.search(self._noise.read_new())
            if found:
                what = found.group().decode("ascii", "replace")
                raise MediaDamaged(f"{self._path}: decord met damage near {at_seconds:.3f} s ({what})")
        return image


def _import_decord() -> Any:
    """decord, without the CUDA libraries that it loads while it is imported, needed or not (0.6 GB, 0.7 s).

    It looks for a package ``nvidia`` to find them. In an isolated child, where nothing else needs that package, it is
    hidden for the time of the import.
    """
    hide = is_isolated() and "nvidia" not in sys.modules
    if hide:
        sys.modules["nvidia"] = None  # type: ignore[assignment]
    try:
        import decord
    finally:
        if hide:
            del sys.modules["nvidia"]
    return decord


def _errors() -> tuple[type[BaseException], ...]:
    """What decord raises; its own two classes have no common root."""
    from decord._ffi.base import DECORDError, DECORDLimitReachedError

    return DECORDError, DECORDLimitReachedError, RuntimeError, AssertionError


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", lines[0])[:300] if lines else type(error).__name__


def _packet_table(
    path: str, info: MediaInfo
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """``pts [T]`` in rising order counted from the first, ``ends [T]``, ``keys [T]`` of every packet.

    Raises:
        MediaUnreadable: decord would choose another stream, or packets and pictures do not pair.
    """
    import av

    pts: list[int] = []
    ends: list[int] = []
    keys: list[bool] = []
    why: str | None = None
    with open_container(path) as container:
        best = container.streams.best("video")
        if best is None or best.index != info.stream_index:
            raise MediaUnreadable(f"{path}: decord would decode stream {best and best.index}, not {info.stream_index}")
        try:
            for packet in container.demux(container.streams[info.stream_index]):
                if not packet.size:
                    continue
                beat()
                if packet.pts is None:
                    why = "a packet has no time stamp"
                elif packet.is_discard:
                    why = "an edit list leaves packets out"
                elif packet.is_corrupt:
                    why = "a packet is cut off"
                if why or packet.pts is None:
                    break
                pts.append(packet.pts - info.start_pts)
                ends.append(packet.pts - info.start_pts + max(1, packet.duration or 1))
                keys.append(packet.is_keyframe)
        except av.error.FFmpegError as error:
            why = f"reading stopped: {error.strerror or error}"
    order = np.argsort(np.asarray(pts, dtype=np.int64), kind="stable")
    table = np.asarray(pts, dtype=np.int64)[order]
    if why is None and not len(table):
        why = "it has no packets"
    if why is None and (np.diff(table) <= 0).any():
        why = "two packets have the same time stamp"
    if why is None and not keys[int(order[0])]:
        why = "its first frame is no key frame"
    if why is None and table[0] < 0:
        why = "a packet lies before the first frame"
    if why is not None:
        raise MediaUnreadable(f"{path}: not for decord: {why}")
    return table, np.asarray(ends, dtype=np.int64)[order], np.asarray(keys, dtype=bool)[order]
