"""Clips for live servers to play: every picture carries its number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from pipeline.sources import open_source
from tests.drawing import numbered_picture, read_number

__all__ = ["RATE", "make_clip", "number_of"]

RATE = 25


def make_clip(
    path: Path,
    real: Path | None = None,
    *,
    frames: int = 250,
    size: tuple[int, int] = (160, 120),
    first: int = 0,
    sound: bool = True,
    gop: int = 12,
) -> Path:
    """An H.264 clip of 25 pictures a second, without reordering; the upper half of each picture shows its number.

    Args:
        real: a video to take the lower halves from, so that the codec has real work; drawn without it.
        first: number of the first picture.
    """
    pictures = _real_pictures(real, size) if real is not None else None
    with av.open(str(path), "w") as container:
        # One slice a picture: GStreamer's payloader puts parameter sets between the slices of a key picture.
        options = {"preset": "veryfast", "x264-params": "bframes=0:sliced-threads=0:scenecut=0"}
        video = container.add_stream("libx264", rate=RATE, options=options)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.gop_size = gop
        voice = container.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for number in range(frames):
            picture = numbered_picture(first + number, *size)
            if pictures is not None:
                picture[size[1] // 2 :] = next(pictures)[size[1] // 2 :]
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if voice is not None:
                beep = av.AudioFrame.from_ndarray(_tone(number), format="fltp", layout="mono")
                beep.sample_rate = 44_100
                container.mux(voice.encode(beep))
        container.mux(video.encode(None))
        if voice is not None:
            container.mux(voice.encode(None))
    return path


def _tone(number: int) -> npt.NDArray[np.float32]:
    samples = 44_100 // RATE
    times = (np.arange(samples) + number * samples) / 44_100
    return (0.1 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]


def _real_pictures(path: Path, size: tuple[int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    import cv2

    while True:
        with open_source(str(path), decoder="pyav", short_side=min(size)) as source:
            for frame in source.frames():
                yield np.asarray(cv2.resize(frame.image, size), dtype=np.uint8)


def number_of(picture: npt.NDArray[np.uint8]) -> int:
    """Which picture of a clip this is."""
    return read_number(picture)
