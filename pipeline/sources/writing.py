"""Writes pictures as a video: for the demo, for examples and for tests.

Shapes: H x W pixels, both even, as the usual 4:2:0 colour needs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from pipeline.errors import DiskFull, InputError, OptionError

__all__ = ["ENCODERS", "can_encode", "write_video"]

_CLOCK = 90_000  # ticks a second: fine enough for every usual frame rate

# How each encoder is told to be quick and still look good.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libx265": {"preset": "ultrafast", "crf": "20", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "28", "b": "0"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},  # constant quality 3, in FFmpeg's lambda units
    "libsvtav1": {"preset": "10", "crf": "30", "svtav1-params": "lp=2"},
}


def can_encode(codec: str) -> bool:
    """Whether this installation of FFmpeg's libraries has the encoder."""
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def write_video(
    path: Path | str,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    rate: int | Fraction = 25,
    starts_seconds: Sequence[Fraction] | None = None,
    codec: str = "libx264",
    keyframe_every: int = 50,
    threads: int = 1,
) -> Path:
    """Write ``frames [H, W, 3]`` (uint8 RGB, all of one size) to a video file; nothing is left of one that failed.

    Args:
        path: its ending decides the container: ``.mp4``, ``.mkv``, ``.webm``, ``.avi``, ``.mov``.
        rate: frames a second; with ``starts_seconds`` only the length of the last frame comes from it.
        starts_seconds: when each frame begins, strictly rising (a variable frame rate); one for each frame.
        codec: name of an encoder in :data:`ENCODERS`.
        keyframe_every: frames from one key frame to the next, at most.
        threads: of the encoder.

    Returns:
        The path.

    Raises:
        OptionError: an unknown codec, one that is not installed, or a rate that is not above zero.
        InputError: no frames, a frame of odd size, of another shape or dtype, or times that do not fit the frames.
        DiskFull: no space left.
    """
    if codec not in ENCODERS:
        raise OptionError(f"codec {codec!r}: allowed are {', '.join(ENCODERS)}")
    if not can_encode(codec):
        raise OptionError(f"codec {codec!r}: this installation of PyAV has no such encoder")
    if rate <= 0:
        raise OptionError(f"rate {rate}: must be above 0 frames a second")
    path = Path(path)
    # A name of its own until it is whole: whoever finds the file under its name finds all of it.
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        _write(unfinished, frames, Fraction(rate), starts_seconds, codec, keyframe_every, threads)
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"{path}: no space left on the disk") from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _write(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    rate: Fraction,
    starts_seconds: Sequence[Fraction] | None,
    codec: str,
    keyframe_every: int,
    threads: int,
) -> None:
    ticks = None if starts_seconds is None else [round(start * _CLOCK) for start in starts_seconds]
    if ticks is not None and any(b <= a for a, b in pairwise(ticks)):
        raise InputError(f"{path.name}: starts_seconds must rise from frame to frame")
    # A fixed rate keeps its own clock: AVI has no other, and MPEG-4 allows at most 65535 ticks a second.
    clock = 1 / rate if ticks is None else Fraction(1, _CLOCK)
    with av.open(str(path), "w") as container:
        stream: Any = None
        size = (0, 0)
        count = 0
        for picture in frames:
            if stream is None:
                size = _checked_size(path, picture)
                stream = container.add_stream(codec, rate=rate, options=dict(ENCODERS[codec]))
                stream.width, stream.height = size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = clock
                stream.codec_context.gop_size = keyframe_every
                stream.codec_context.thread_count = threads
            if picture.dtype != np.uint8 or picture.shape != (size[1], size[0], 3):
                raise InputError(
                    f"{path.name}: frame {count} is {picture.dtype} {list(picture.shape)}, not as the first"
                )
            if ticks is not None and count >= len(ticks):
                raise InputError(f"{path.name}: {len(ticks)} times for more frames than that")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.time_base = clock
            frame.pts = count if ticks is None else ticks[count]
            frame.duration = _duration(ticks, count, rate)
            container.mux(stream.encode(frame))
            count += 1
        if stream is None:
            raise InputError(f"{path.name}: no frames to write")
        if ticks is not None and count != len(ticks):
            raise InputError(f"{path.name}: {len(ticks)} times for {count} frames")
        container.mux(stream.encode(None))


def _checked_size(path: Path, picture: npt.NDArray[np.uint8]) -> tuple[int, int]:
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape or picture.shape[0] % 2 or picture.shape[1] % 2:
        raise InputError(f"{path.name}: frames must be [H, W, 3] with even H and W, got {list(picture.shape)}")
    return picture.shape[1], picture.shape[0]


def _duration(ticks: list[int] | None, number: int, rate: Fraction) -> int:
    if ticks is None:
        return 1
    return ticks[number + 1] - ticks[number] if number + 1 < len(ticks) else round(_CLOCK / rate)
