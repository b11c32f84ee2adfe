"""DFMR: average pooling with a finer grid where a frame varies more over space.

After Ke Wang and Hong Xuan, "LLaVA-Zip: Adaptive Visual Token Compression with Intrinsic Image Information" (Dynamic
Feature Map Reduction), 2024, arXiv 2412.08771. There, the pooling factor of an image is the largest whose windows
deviate within themselves by no more than a threshold. Here all frames share one budget: the threshold is lowered until
the budget is used up, so the tokens go to the frames that deviate most.

Shapes: T frames, P patches a frame, n = T * P tokens, d width, m tokens kept, L levels (pooling factors).
"""

from __future__ import annotations

import heapq
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.offline import Window
from csat_fusion.compressors.pooling import Grid, GridCompressor, grid_cells, grid_shape

__all__ = ["DfmrCompressor"]


class DfmrCompressor(GridCompressor):
    """Pools each frame with a factor chosen by how much its patches deviate; exactly m tokens.

    Every frame starts as one token. The frame whose windows deviate most (the mean over windows of the root mean square
    distance of a patch from its window's mean) takes the next smaller factor, until m tokens are there; the last one
    takes as many cells as are left. Below one token a frame (m < T) there is nothing to share: frames that follow one
    another are averaged into m segments, as ``spatial-pool`` does. ``gap_seconds`` is ignored.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    exact_budget: ClassVar[bool] = True

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        if limit < frames:
            return window.frame * limit // frames
        shape = grid_shape(patches, self._grid)
        levels = _levels(shape)
        tokens = window.tokens.reshape(frames, patches, -1)
        deviation = torch.stack([_deviation(tokens, grid_cells(shape, cells)) for cells in levels])
        cells = _share(deviation.T.tolist(), levels, limit)
        tables = {count: grid_cells(shape, count) for count in set(cells)}
        first, parts = 0, []
        for count in cells:
            parts.append(tables[count] + first)
            first += count
        return torch.cat(parts).to(window.tokens.device)


def _levels(shape: Grid) -> list[int]:
    """The number of cells for each pooling factor, from one cell to one a patch."""
    rows, columns = shape
    counts = {-(-rows // factor) * -(-columns // factor) for factor in range(1, max(shape) + 1)}
    return sorted(counts)


def _deviation(tokens: Tensor, cell: Tensor) -> Tensor:
    """The mean over windows of the root mean square distance to the window's mean: ``[T]`` float64.

    ``tokens [T, P, d]``, ``cell [P]``. A window counts by its patches, as windows at the edge may be smaller.
    """
    cell = cell.to(tokens.device)
    member = torch.nn.functional.one_hot(cell).to(tokens.dtype)  # [P, cells]
    mean = (member / member.sum(dim=0)).T @ tokens  # [T, cells, d]
    square: Tensor = torch.linalg.vector_norm(tokens - mean[:, cell], dim=-1, dtype=torch.float64) ** 2  # [T, P]
    member = member.double()
    deviation: Tensor = (square @ member / member.sum(dim=0)).sqrt() @ member.sum(dim=0) / len(cell)
    return deviation


def _share(deviation: list[list[float]], levels: list[int], limit: int) -> list[int]:
    """The cells of each frame: ``limit`` in all, refined where ``deviation [T, L]`` is largest, the earlier first."""
    cells = [levels[0]] * len(deviation)
    left = limit - sum(cells)
    heap = [(-row[0], t, 0) for t, row in enumerate(deviation) if len(levels) > 1]
    heapq.heapify(heap)
    while left and heap:
        _, t, level = heapq.heappop(heap)
        finer = min(levels[level + 1], cells[t] + left)
        left -= finer - cells[t]
        cells[t] = finer
        if level + 2 < len(levels):
            heapq.heappush(heap, (-deviation[t][level + 1], t, level + 1))
    return cells
