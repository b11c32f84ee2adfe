"""Which decoded frames are looked at: one every 1/fps seconds, the key frames only, or all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import OptionError
from pipeline.media import Frame

__all__ = ["SAMPLING_MODES", "Sampler", "SamplingOptions"]

SAMPLING_MODES = ("fps", "keyframes", "all")

# A grid time and a presentation time that are equal on paper may differ by rounding once they are floats.
_EPSILON_SECONDS = 1e-6


@dataclass(frozen=True)
class SamplingOptions:
    """``mode``: "fps" (one frame every 1/``fps`` seconds), "keyframes" or "all"."""

    mode: str = "fps"
    fps: float = 2.0

    def __post_init__(self) -> None:
        if self.mode not in SAMPLING_MODES:
            raise OptionError(f"sampling.mode is {self.mode!r}; allowed: {', '.join(SAMPLING_MODES)}")
        if not (math.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise OptionError(f"sampling.fps is {self.fps}; allowed: more than 0, at most 1000 frames a second")


class Sampler:
    """Chooses frames on one grid of media time, k/fps, so that parts of a video choose as the whole would."""

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._next_index = -1  # of the next grid time to be served; -1 before the first frame

    def wants(self, frame: Frame) -> bool:
        """Whether ``frame`` is sampled. Frames must come in time order.

        In "fps" mode a frame is sampled when it is the first at or after a grid time not yet served.
        """
        if self._options.mode == "all":
            return True
        if self._options.mode == "keyframes":
            return frame.keyframe
        # The last grid time at or before this frame.
        index = math.floor((frame.pts_seconds + _EPSILON_SECONDS) * self._options.fps)
        if index < self._next_index:
            return False
        self._next_index = index + 1
        return True
