"""The gate: a sampled frame that looks like the last encoded one (the anchor) is not encoded again.

The check works on small pictures, with windows of two sizes that slide over them. A place counts as changed only when
no small displacement of the anchor explains it, so that a person who sways on the spot passes as "the same", while one
who appears far away does not: the largest change of any single window decides, never an average over the picture. This
is the residual of block matching as video codecs use it, against the anchor instead of the previous frame, so slow
drift adds up until it is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import OptionError

__all__ = ["Gate", "GateOptions"]

_HEIGHT = 112  # pixels: the short side of the picture that the gate compares
_FINE = 8  # pixels: a window that catches small things with much contrast
_COARSE = 16  # pixels: a window that catches larger things with little contrast
_STEP = 2  # pixels between the displacements tried


@dataclass(frozen=True)
class GateOptions:
    """When two pictures count as alike. Thresholds are mean absolute differences in a window, in grey levels of 255.

    ``fine_threshold`` is for windows of 1/14 of the short side, ``coarse_threshold`` for those of 1/7;
    ``displacement`` is how far (share of the short side) content may have moved and still count as the same;
    ``hold_seconds`` is the longest time that one encoded frame may stand for.
    """

    enabled: bool = True
    fine_threshold: float = 36.0
    coarse_threshold: float = 22.0
    displacement: float = 0.07
    hold_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("fine_threshold", "coarse_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 255:
                raise OptionError(f"gate.{name} is {value}; allowed: 0 to 255 grey levels")
        if not 0 <= self.displacement <= 0.25:
            raise OptionError(f"gate.displacement is {self.displacement}; allowed: 0 to 0.25 of the short side")
        if not self.hold_seconds > 0:
            raise OptionError(f"gate.hold_seconds is {self.hold_seconds}; allowed: more than 0")


class Gate:
    """Compares each sampled frame with the anchor, the last one that passed."""

    def __init__(self, options: GateOptions) -> None:
        self._options = options
        self._reach = round(options.displacement * _HEIGHT / _STEP) * _STEP
        self._anchor: npt.NDArray[np.uint8] | None = None  # with a replicated border of _reach pixels
        self._anchor_seconds = 0.0

    def reset(self) -> None:
        """Forget the anchor: the next frame passes (a new segment begins)."""
        self._anchor = None

    def passes(self, image: npt.NDArray[np.uint8], seconds: float) -> bool:
        """Whether ``image [H, W, 3]`` shown at ``seconds`` must be encoded; if so, it is the new anchor."""
        return self.judge(image, seconds) != "same"

    def judge(self, image: npt.NDArray[np.uint8], seconds: float) -> Literal["new", "held", "same"]:
        """As :meth:`passes`, and why: what is "new", what only was "held" as long as it may be, what is the "same"."""
        if not self._options.enabled:
            return "new"
        small = _small(image)
        anchor, begun = self._anchor, self._anchor_seconds
        alike = (
            anchor is not None
            and anchor.shape == tuple(s + 2 * self._reach for s in small.shape)
            and self._alike(anchor, small)
        )
        if alike and seconds - begun < self._options.hold_seconds:
            return "same"
        import cv2

        r = self._reach
        self._anchor = np.asarray(cv2.copyMakeBorder(small, r, r, r, r, cv2.BORDER_REPLICATE), dtype=np.uint8)
        self._anchor_seconds = seconds
        return "held" if alike else "new"

    def _alike(self, anchor: npt.NDArray[np.uint8], small: npt.NDArray[np.uint8]) -> bool:
        import cv2

        height, width = small.shape
        top, left = 0, 0  # of the region that is still looked at
        fine: npt.NDArray[np.uint8] | None = None
        coarse: npt.NDArray[np.uint8] | None = None
        for dy, dx in _displacements(self._reach):
            y, x = top + self._reach + dy, left + self._reach + dx
            difference = cv2.absdiff(anchor[y : y + height, x : x + width], small)
            fine = _least(fine, cv2.blur(difference, (_FINE, _FINE)))
            coarse = _least(coarse, cv2.blur(difference, (_COARSE, _COARSE)))
            changed = (fine > self._options.fine_threshold) | (coarse > self._options.coarse_threshold)
            if not changed.any():
                return True
            if dy == dx == 0:
                # What did not move is settled: the search goes on where something did, a window's width around it.
                left, top, width, height = _region(changed)
                region = np.s_[top : top + height, left : left + width]
                small, fine, coarse = small[region], fine[region].copy(), coarse[region].copy()
        return False


def _region(changed: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is True, with a margin."""
    import cv2

    left, top, width, height = cv2.boundingRect(changed.astype(np.uint8))
    right, bottom = min(left + width + _COARSE, changed.shape[1]), min(top + height + _COARSE, changed.shape[0])
    left, top = max(0, left - _COARSE), max(0, top - _COARSE)
    return left, top, right - left, bottom - top


def _least(so_far: npt.NDArray[np.uint8] | None, new: object) -> npt.NDArray[np.uint8]:
    now = np.asarray(new, dtype=np.uint8)
    return now if so_far is None else np.minimum(so_far, now, out=so_far)


def _displacements(reach: int) -> list[tuple[int, int]]:
    """All ``(dy, dx)`` within ``reach``, the nearest first, so that a still picture is settled at once."""
    steps = range(-reach, reach + 1, _STEP)
    return sorted(((dy, dx) for dy in steps for dx in steps), key=lambda d: d[0] ** 2 + d[1] ** 2)


def _small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey, short side ``_HEIGHT``, lightly smoothed: what is left of codec noise shall not open the gate."""
    import cv2

    height, width = image.shape[:2]
    scale = _HEIGHT / min(height, width)
    size = (max(_COARSE, round(width * scale)), max(_COARSE, round(height * scale)))
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.GaussianBlur(grey, (3, 3), 0), dtype=np.uint8)
