"""Key frames: the few pictures of a segment that stand best for all of it.

Shapes: n pictures, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["KeyFrame", "cover"]

_SIDE = 16  # pixels: where something is and how bright it is, no more, decides what is alike


@dataclass(frozen=True, eq=False)
class KeyFrame:
    """A picture ``[H, W, 3]`` (uint8 RGB, upright) shown at ``seconds``, and the half-open span that it stands for."""

    image: npt.NDArray[np.uint8]
    seconds: float
    start_seconds: float
    end_seconds: float

    @property
    def duration_seconds(self) -> float:
        return self.end_seconds - self.start_seconds


def cover(frames: Sequence[KeyFrame], count: int) -> list[KeyFrame]:
    """The ``count`` of ``frames`` that together cover most of their time, in order of time; all where there are fewer.

    A picture covers another's time by how alike they are, and each moment counts as covered by the best of those
    chosen: facility location, which the greedy choice solves to within 1 - 1/e of the best (Nemhauser, Wolsey and
    Fisher, "An analysis of approximations for maximizing submodular set functions", Mathematical Programming 14, 1978).

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; allowed: 1 or more")
    if len(frames) <= count:
        return sorted(frames, key=lambda frame: frame.start_seconds)
    small = np.stack([_small(frame.image) for frame in frames])
    apart = np.abs(small[:, None] - small[None]).mean(axis=2)
    alike = np.exp(-apart / 0.1)
    seconds = np.array([max(frame.duration_seconds, 1e-6) for frame in frames])
    covered = np.zeros(len(frames))
    chosen: list[int] = []
    for _ in range(count):
        gain = (seconds * np.maximum(alike - covered, 0.0)).sum(axis=1)  # of each, were it chosen next
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        covered = np.maximum(covered, alike[best])
    return sorted((frames[i] for i in chosen), key=lambda frame: frame.start_seconds)


def _small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """A picture as ``_SIDE`` x ``_SIDE`` mean grey levels from 0 to 1, in one row."""
    rows = np.array_split(image.astype(np.float64).mean(axis=2), min(_SIDE, image.shape[0]), axis=0)
    bands = np.stack([row.mean(axis=0) for row in rows])
    columns = np.array_split(bands, min(_SIDE, image.shape[1]), axis=1)
    cells = np.stack([column.mean(axis=1) for column in columns], axis=1) / 255
    full = np.zeros((_SIDE, _SIDE))
    full[: cells.shape[0], : cells.shape[1]] = cells
    return full.ravel()
