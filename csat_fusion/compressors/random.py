"""A uniform random choice of tokens: what any method that looks at the content has to beat.

Shapes: T frames, P patches a frame, n = T * P tokens, m tokens kept.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.pooling import Grid, check_grid, grid_shape
from csat_fusion.errors import CompressionError

__all__ = ["RandomCompressor"]


class RandomCompressor(OfflineCompressor):
    """Keeps exactly m tokens, every choice equally likely, as they are.

    The others are given to the kept token of the same patch that is nearest in time (the earlier of two equally near);
    where a patch has none, to those of the nearest patch on the grid that has one. The choice depends only on ``seed``,
    n and m, so it is the same on every device. It is made anew for every n: this is no reservoir, and not causal.
    ``gap_seconds`` is ignored.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        seed: of the choice, a whole number from 0 to 2**63 - 1.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        seed: int = 0,
        grid: Grid | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise CompressionError(f"the seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
        self._seed = seed
        self._grid = check_grid(grid)

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        kept = self._chosen(len(window.tokens), limit)
        mask = torch.zeros(frames * patches, dtype=torch.bool)
        mask[kept] = True
        mask = mask.reshape(frames, patches)
        time = ((window.start_seconds + window.end_seconds) / 2).reshape(frames, patches)[:, 0].cpu()
        source = _nearest_patch(mask.any(dim=0), grid_shape(patches, self._grid))  # [P]
        nearest = _nearest_frame(mask, time)[:, source]  # [T, P]
        number = torch.zeros(frames * patches, dtype=torch.int64)
        number[kept] = torch.arange(limit)
        return number[nearest * patches + source].reshape(-1).to(window.tokens.device)

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        m = int(group.max()) + 1
        kept = self._chosen(len(window.tokens), m).to(group.device)
        return window.tokens[kept]

    def _chosen(self, n: int, m: int) -> Tensor:
        """``[m]`` indices in order; from numbers made on the CPU, which are the same everywhere."""
        generator = torch.Generator().manual_seed(self._seed)
        return torch.argsort(torch.rand(n, dtype=torch.float64, generator=generator), stable=True)[:m].sort().values


def _nearest_patch(has: Tensor, shape: Grid) -> Tensor:
    """For each patch the nearest one ``[P]`` for which ``has [P]``, the first of equally near ones."""
    index = torch.arange(len(has))
    row, column = index // shape[1], index % shape[1]
    there = torch.nonzero(has).squeeze(1)
    square = (row[:, None] - row[there]) ** 2 + (column[:, None] - column[there]) ** 2
    return there[(square * len(has) + index[there]).argmin(dim=1)]


def _nearest_frame(mask: Tensor, time: Tensor) -> Tensor:
    """For each frame and patch the frame ``[T, P]`` nearest in ``time [T]`` where ``mask [T, P]``; 0 without any."""
    frames = len(mask)
    frame = torch.arange(frames)[:, None].expand_as(mask)
    before = torch.where(mask, frame, -1).cummax(dim=0).values
    after = torch.where(mask, frame, frames).flip(0).cummin(dim=0).values.flip(0)
    to_before = torch.where(before >= 0, time[:, None] - time[before.clamp(min=0)], torch.inf)
    to_after = torch.where(after < frames, time[after.clamp(max=frames - 1)] - time[:, None], torch.inf)
    return torch.where(to_before <= to_after, before, after).clamp(0, frames - 1)
