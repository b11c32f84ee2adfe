"""Can this installation decode? Makes a tiny video with a codec and reads it back with each decoder.

``try_codec`` is run in an isolated child (:mod:`pipeline.isolation`), because a broken decoder may crash its process.

Shapes: H x W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import LongreelError, OptionError
from pipeline.sources.opening import DECODERS, open_source

__all__ = ["CODECS", "CodecTrial", "try_codec"]

# codec -> encoder that makes it, and the container
CODECS: dict[str, tuple[str, str]] = {
    "h264": ("libx264", ".mp4"),
    "hevc": ("libx265", ".mp4"),
    "vp9": ("libvpx-vp9", ".webm"),
    "av1": ("libsvtav1", ".mp4"),
    "mpeg4": ("mpeg4", ".avi"),
}

_FRAMES, _RATE, _SIZE, _DARKEST, _STEP = 10, 10, 64, 40, 16


@dataclass(frozen=True)
class CodecTrial:
    """``encoder`` made the video (None: there is none here); ``failures`` says by decoder what went wrong."""

    codec: str
    encoder: str | None
    failures: dict[str, str]


def try_codec(codec: str, decoders: tuple[str, ...] = tuple(DECODERS)) -> Iterator[CodecTrial]:
    """One trial: draw ten frames, each brighter than the last, encode them, and look for them with each decoder.

    Raises:
        OptionError: for a codec that is not in ``CODECS``.
    """
    if codec not in CODECS:
        raise OptionError(f"codec {codec!r} is not one of {', '.join(CODECS)}")
    from pipeline.sources.writing import can_encode, write_video

    encoder, ending = CODECS[codec]
    if not can_encode(encoder):
        yield CodecTrial(codec, None, {})
        return
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="longreel-codec-") as folder:
        path = Path(folder) / f"{codec}{ending}"
        pictures = [np.full((_SIZE, _SIZE, 3), _DARKEST + _STEP * n, dtype=np.uint8) for n in range(_FRAMES)]
        write_video(path, pictures, rate=_RATE, codec=encoder)
        for decoder in decoders:
            try:
                _read(path, decoder)
            except LongreelError as error:
                failures[decoder] = str(error).replace(str(path), path.name)
    yield CodecTrial(codec, encoder, failures)


def _read(path: Path, decoder: str) -> None:
    with open_source(str(path), decoder=decoder, short_side=None, threads=1) as source:
        found = [(round(frame.pts_seconds, 3), float(frame.image.mean())) for frame in source.frames()]
    if len(found) != _FRAMES:
        raise LongreelError(f"{decoder} gave {len(found)} of {_FRAMES} frames")
    for number, (seconds, brightness) in enumerate(found):
        expected = _DARKEST + _STEP * number
        if abs(seconds - number / _RATE) > 0.02 or abs(brightness - expected) > _STEP / 2:
            raise LongreelError(
                f"{decoder} gave frame {number} at {seconds:.3f} s with brightness {brightness:.0f}, "
                f"expected {number / _RATE:.3f} s and {expected}"
            )
