"""Can this installation decode? Makes a tiny video with a codec and reads it back with each decoder.

``try_codec`` is run in an isolated child (:mod:`pipeline.isolation`), because a broken decoder may crash its process.

Shapes: H x W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import LongreelError, OptionError
from pipeline.sources.opening import DECODERS, open_source

__all__ = ["CODECS", "CodecTrial", "try_codec"]

# codec -> encoders that make it (the first that PyAV has is used), and the container
CODECS: dict[str, tuple[tuple[str, ...], str]] = {
    "h264": (("libx264", "libopenh264"), ".mp4"),
    "hevc": (("libx265",), ".mp4"),
    "vp9": (("libvpx-vp9",), ".webm"),
    "av1": (("libsvtav1", "libaom-av1", "librav1e"), ".mp4"),
    "mpeg4": (("mpeg4",), ".avi"),
}

_FRAMES, _SIZE, _DARKEST, _STEP = 10, 64, 40, 16
_QUICK = {"libx264": {"preset": "ultrafast"}, "libsvtav1": {"preset": "10"}, "libaom-av1": {"cpu-used": "8"}} | {
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


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
    encoders, ending = CODECS[codec]
    with tempfile.TemporaryDirectory(prefix="longreel-codec-") as folder:
        path = Path(folder) / f"{codec}{ending}"
        encoder = next((name for name in encoders if _can_encode(name)), None)
        failures: dict[str, str] = {}
        if encoder is not None:
            _draw(path, encoder)
            for decoder in decoders:
                try:
                    _read(path, decoder)
                except LongreelError as error:
                    failures[decoder] = str(error).replace(str(path), path.name)
        yield CodecTrial(codec, encoder, failures)


def _can_encode(name: str) -> bool:
    import av
    from av.codec.codec import UnknownCodecError

    try:
        av.Codec(name, "w")
    except UnknownCodecError:
        return False
    return True


def _draw(path: Path, encoder: str) -> None:
    import av

    container: Any = av.open(str(path), "w")
    with container:
        stream: Any = container.add_stream(encoder, rate=10, options=_QUICK.get(encoder, {}))
        stream.width = stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(_FRAMES):
            picture = np.full((_SIZE, _SIZE, 3), _DARKEST + _STEP * number, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _read(path: Path, decoder: str) -> None:
    with open_source(str(path), decoder=decoder, short_side=None, threads=1) as source:
        found = [(round(frame.pts_seconds, 3), float(frame.image.mean())) for frame in source.frames()]
    if len(found) != _FRAMES:
        raise LongreelError(f"{decoder} gave {len(found)} of {_FRAMES} frames")
    for number, (seconds, brightness) in enumerate(found):
        expected = _DARKEST + _STEP * number
        if abs(seconds - number / 10) > 0.02 or abs(brightness - expected) > _STEP / 2:
            raise LongreelError(
                f"{decoder} gave frame {number} at {seconds:.3f} s with brightness {brightness:.0f}, "
                f"expected {number / 10:.3f} s and {expected}"
            )
