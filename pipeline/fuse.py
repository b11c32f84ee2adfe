"""Fused vectors: a segment's frame embeddings, merged along time into a few vectors that each know their own span.

The same merging as for patch tokens (Ward's cost between weighted means, see ``csat_fusion``), restricted to neighbours
in time, so that a vector stands for one unbroken span and the spans partition the segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import OptionError
from pipeline.media import VectorBlock

__all__ = ["VectorOptions", "fuse_vectors"]


@dataclass(frozen=True)
class VectorOptions:
    """How many vectors a segment keeps. They go where something happens: the gate has measured that.

    ``frames_per_vector``: encoded frames that share a vector where most of what was sampled was new. Where the gate
    passed a smaller share of the sampled frames than ``new_share``, what it passed is more of the same too (frames
    taken up again after a hold, a person who turns), and proportionally more of them share a vector. One is always
    kept.
    """

    frames_per_vector: float = 2.0
    new_share: float = 0.56

    def __post_init__(self) -> None:
        if not self.frames_per_vector >= 1:
            raise OptionError(f"vectors.frames_per_vector is {self.frames_per_vector}; allowed: 1 or more")
        if not 0 < self.new_share <= 1:
            raise OptionError(f"vectors.new_share is {self.new_share}; allowed: more than 0, at most 1")

    def budget(self, encoded: int, sampled: float) -> int:
        """How many vectors a segment keeps, of whose ``sampled`` frames ``encoded`` passed the gate."""
        share = min(1.0, encoded / max(sampled, 1.0))
        return max(1, math.ceil(encoded / self.frames_per_vector * min(1.0, share / self.new_share) - 1e-9))


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
        options.budget(len(embedding), float(weight.sum())),
    )
    mean = merged.tokens.numpy().astype(np.float32)
    unit = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return VectorBlock(
        embedding=unit.astype(np.float16),
        start_seconds=merged.start_seconds.numpy().astype(np.float64),
        end_seconds=merged.end_seconds.numpy().astype(np.float64),
        weight=merged.weight.numpy().astype(np.float32),
    )
