"""Frames that are scaled when they are looked at: of most, the shot detector's small look is all that is wanted.

Shapes: H x W pixels of the upright picture in display aspect.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.media import Frame, MediaInfo
from pipeline.sources.base import picture_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["PendingFrame", "Renderer"]


class Renderer:
    """Scales the decoder's pictures of one source and turns them upright. May be used from several threads."""

    def __init__(self, info: MediaInfo, short_side: int | None) -> None:
        from av.video.reformatter import VideoReformatter

        self._info = info
        self._size = picture_size(info, short_side)
        # Kept: making a scaler for each frame costs more than scaling does.
        self._scaler, self._small_scaler = VideoReformatter(), VideoReformatter()
        self._lock = threading.Lock()  # a scaler is no thread's own

    def render(self, picture: VideoFrame, short_side: int | None = None) -> npt.NDArray[np.uint8]:
        """``[H, W, 3]``: scaled first, turned upright afterwards, because fewer pixels then move.

        With ``short_side`` a small picture by a cheaper filter, else the source's size.
        """
        width, height = self._size if short_side is None else picture_size(self._info, short_side)
        scaler, filter_name = (self._scaler, "BICUBIC") if short_side is None else (self._small_scaler, "FAST_BILINEAR")
        turns = (picture.rotation // 90) % 4
        if turns % 2:
            width, height = height, width
        with self._lock:
            scaled: Any = scaler.reformat(
                picture, width, height, "rgb24", interpolation=filter_name, threads=1
            ).to_ndarray()
        # A copy in any case: PyAV gives a view of its own padded buffer.
        return np.ascontiguousarray(np.rot90(scaled, turns) if turns else scaled)


class PendingFrame(Frame):
    """A frame that holds the decoder's picture until its pixels are asked for."""

    _renderer: Renderer
    _picture: VideoFrame
    _full: npt.NDArray[np.uint8] | None

    def __init__(
        self,
        renderer: Renderer,
        picture: VideoFrame,
        pts: int,
        duration: int,
        time_base: Fraction,
        keyframe: bool,
        corrupt: bool,
    ) -> None:
        values = {"_renderer": renderer, "_picture": picture, "_full": None, "pts": pts, "duration": duration}
        values |= {"time_base": time_base, "keyframe": keyframe, "corrupt": corrupt}
        for name, value in values.items():
            object.__setattr__(self, name, value)  # frames are frozen

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        if self._full is None:
            object.__setattr__(self, "_full", self._renderer.render(self._picture))
        assert self._full is not None
        return self._full

    def small(self, short_side: int) -> npt.NDArray[np.uint8]:
        return self._renderer.render(self._picture, short_side)

    def __repr__(self) -> str:  # Frame's own would scale the picture
        return f"PendingFrame(pts={self.pts}, duration={self.duration}, time_base={self.time_base})"

    def at(self, pts: int, duration: int) -> PendingFrame:
        """The same picture at another time."""
        return PendingFrame(self._renderer, self._picture, pts, duration, self.time_base, self.keyframe, self.corrupt)
