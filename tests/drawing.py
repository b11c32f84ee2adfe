"""Small videos drawn for tests: every frame carries its number in a row of black and white blocks, so that a test can
tell which picture it got whatever the codec, size and rotation did to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

BITS = 10
ENDINGS = {
    "libx264": ".mp4",
    "libx265": ".mkv",
    "libvpx-vp9": ".webm",
    "mpeg4": ".avi",
    "mjpeg": ".avi",
    "libsvtav1": ".mp4",
    "mpeg2video": ".ts",
}


def numbered_picture(number: int, width: int = 160, height: int = 120) -> npt.NDArray[np.uint8]:
    """A picture ``[H, W, 3]`` whose upper half shows ``number`` in bits, most significant first."""
    picture = np.full((height, width, 3), 96, dtype=np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        picture[: height // 2, left:right] = 235 if number >> (BITS - 1 - bit) & 1 else 16
    x = (number * 3) % (width - 20)
    picture[height * 3 // 4 : height * 3 // 4 + 16, x : x + 16] = (200, 40, 40)
    return picture


def read_number(picture: npt.NDArray[np.uint8]) -> int:
    """The number that ``numbered_picture`` drew."""
    height, width = picture.shape[:2]
    number = 0
    for bit in range(BITS):
        middle = int((bit + 0.5) * width / BITS)
        value = picture[height // 8 : height * 3 // 8, max(0, middle - 2) : middle + 2].mean()
        number = number << 1 | int(value > 110)
    return number


def draw_video(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 50,
    rate: int | Fraction = 25,
    size: tuple[int, int] = (160, 120),
    pts: Sequence[int] | None = None,
    gop: int = 12,
    bframes: int = 2,
    pix_fmt: str | None = None,
    aspect: Fraction | None = None,
    rotation: int | None = None,
    open_gop: bool = False,
    container_options: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write a video of numbered pictures.

    Args:
        path: with an ending that the container is chosen by; without one the codec's usual container is taken.
        pts: time of each frame in units of 1/rate; 0, 1, 2, ... without it.
        open_gop: let frames refer across key frames (x264, x265).
        rotation: degrees that a player turns the picture, counter-clockwise (display matrix, mp4 only).
    """
    if not path.suffix:
        path = path.with_suffix(ENDINGS[codec])
    extra = f":open-gop={int(open_gop)}"
    container: Any = av.open(str(path), "w", options=dict(container_options))
    with container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        time_base = 1 / Fraction(rate)
        stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        given = {"preset": "ultrafast"} if codec in ("libx264", "libx265") else {}
        if codec == "libx264":
            given |= {"x264-params": f"keyint={gop}:min-keyint=1:scenecut=0:bframes={bframes}:b-adapt=0{extra}"}
        elif codec == "libx265":
            given |= {"x265-params": f"keyint={gop}:min-keyint=1:scenecut=0:bframes={bframes}:log-level=none{extra}"}
        elif codec == "libvpx-vp9":
            given |= {"deadline": "realtime", "cpu-used": "8"}
        elif codec == "libsvtav1":
            given |= {"preset": "12"}
        elif codec in ("mpeg4", "mjpeg", "mpeg2video"):
            stream.codec_context.bit_rate = 2_000_000
        stream.options = given
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size), format="rgb24")
            frame.pts = number if pts is None else pts[number]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packet_times(path: Path) -> list[int]:
    """PTS of every packet of the first video stream that is shown, in order, counted from the first."""
    with av.open(str(path)) as container:
        found = sorted(p.pts for p in container.demux(video=0) if p.pts is not None and p.size and not p.is_discard)
    return [pts - found[0] for pts in found]
