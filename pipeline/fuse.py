"""Fused vectors: a segment's frame embeddings, merged along time into a few vectors that each know their own span.

The same merging as for patch tokens (Ward's cost between weighted means, see ``csat_fusion``), restricted to neighbours
in time, so that a vector stands for one unbroken span and the spans partition the segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import OptionError
from pipeline.media import VectorBlock

__all__ = ["VectorOptions", "fuse_vectors"]


@dataclass(frozen=True)
class VectorOptions:
    """``frames_per_vector``: one vector is kept for so many sampled frames of a segment, rounded down, at least one."""

    frames_per_vector: float = 8.0

    def __post_init__(self) -> None:
        if not self.frames_per_vector >= 1:
            raise OptionError(f"vectors.frames_per_vector is {self.frames_per_vector}; allowed: 1 or more")

    def budget(self, frames_sampled: float) -> int:
        """How many vectors a segment of ``frames_sampled`` frames may keep."""
        return max(1, int(frames_sampled / self.frames_per_vector))


def fuse_vectors(
    embedding: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    start_seconds: npt.NDArray[np.float64],
    end_seconds: npt.NDArray[np.float64],
    options: VectorOptions,
) -> VectorBlock:
    """Merge ``embedding [T, D]`` (unit length, in time order) into at most the budget's vectors ``[V, D]`` of unit
    length.

    ``weight [T]`` is how many sampled frames each stands for, ``[start_seconds, end_seconds) [T]`` what it covers.
    """
    import torch

    from csat_fusion import merge_runs

    merged = merge_runs(
        torch.from_numpy(embedding),
        torch.from_numpy(weight),
        torch.from_numpy(start_seconds),
        torch.from_numpy(end_seconds),
        options.budget(float(weight.sum())),
    )
    mean = merged.tokens.numpy().astype(np.float32)
    unit = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return VectorBlock(
        embedding=unit.astype(np.float16),
        start_seconds=merged.start_seconds.numpy().astype(np.float64),
        end_seconds=merged.end_seconds.numpy().astype(np.float64),
        weight=merged.weight.numpy().astype(np.float32),
    )
