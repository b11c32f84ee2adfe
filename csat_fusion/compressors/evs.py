"""EVS: pruning the patch tokens that look like the same patch of the frame before.

After N. Bagrov, E. Khvedchenia, B. Tymchenko and others, "Efficient Video Sampling: Pruning Temporally Redundant Tokens
for Faster VLM Inference", 2025, arXiv 2510.14624. The paper compares pixels and cuts at a percentile of the whole
sequence; here token embeddings are compared by cosine, and the cut is where exactly m tokens are left. Comparison with
the previous frame is open loop: a slow drift never adds up to a change.

Shapes: T frames, P patches a frame, n = T * P tokens, d width, m tokens kept.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import flag
from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.pooling import Grid, check_grid, grid_cells, grid_shape

__all__ = ["EvsCompressor"]

# Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
_ROUNDING_SECONDS = 1e-9


class EvsCompressor(OfflineCompressor):
    """Keeps the first frame and the ``m - P`` tokens least like the same patch of the frame before; exactly m tokens.

    A pruned token goes to the kept one before it on the same patch. After unseen time of more than ``gap_seconds`` a
    token is kept before all that have none, whatever its cosine. Below one frame (m < P) patches are pooled: each of m
    cells of the grid is one token for the whole window. Zero tokens have cosine 1 with each other and 0 with all else.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        means: keep the mean of a token and those pruned after it, not the token itself as published.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        means: bool = False,
        grid: Grid | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._means = flag("means", means)
        self._grid = check_grid(grid)

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        device = window.tokens.device
        if limit < patches:
            return grid_cells(grid_shape(patches, self._grid), limit).to(device)[window.patch]
        change = 1 - _cosine_with_previous(window.tokens.reshape(frames, patches, -1))  # [T - 1, P], 0 to 2
        start, end = (column.reshape(frames, patches) for column in (window.start_seconds, window.end_seconds))
        unseen = start[1:] - end[:-1].cummax(dim=0).values > self._gap_seconds + _ROUNDING_SECONDS
        change = (change + 4.0 * unseen).reshape(-1)
        order = torch.argsort(change, descending=True, stable=True)  # equal ones: the earlier is kept
        keep = torch.zeros_like(change, dtype=torch.bool)
        keep[order[: limit - patches]] = True
        keep = torch.cat([keep.new_ones(1, patches), keep.reshape(frames - 1, patches)])
        run = keep.long().cumsum(dim=0)  # from 1, within a patch
        before = torch.nn.functional.pad(run[-1].cumsum(dim=0)[:-1], (1, 0))
        return (before + run - 1).reshape(-1)

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        """The first token of each group, or of a pooled cell the first of its middle patch."""
        if self._means:
            return None
        key = group * window.shape[1] + window.patch
        order = torch.argsort(key, stable=True)  # by group, patch and time
        count = torch.bincount(group)
        middle = count.cumsum(dim=0) - count + (count - 1) // 2
        sorted_key = key[order]
        return window.tokens[order[torch.searchsorted(sorted_key, sorted_key[middle])]]


def _cosine_with_previous(tokens: Tensor) -> Tensor:
    """The cosine ``[T - 1, P]`` float64 of each token of ``[T, P, d]`` with the same patch of the frame before."""
    norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=torch.float64)
    unit = tokens / torch.where(norm > 0, norm, 1.0)
    both_zero = (norm[1:] == 0) & (norm[:-1] == 0)
    cosine: Tensor = (unit[1:] * unit[:-1]).sum(dim=-1) + both_zero.squeeze(-1)
    return cosine
