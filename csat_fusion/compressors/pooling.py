"""Pooling that is blind to content: equal segments of time, or a grid of cells over each frame.

These are the baselines of video language models (means over time, average pooling of the patch grid); patches are taken
to lie on a grid in raster order.

Shapes: T frames, P patches a frame, n = T * P tokens, d width, m tokens kept, S segments of time, C cells of a frame.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.errors import CompressionError

__all__ = ["GridCompressor", "SegmentMeanCompressor", "SpatialPoolCompressor", "check_grid", "grid_cells", "grid_shape"]

Grid = tuple[int, int]


def check_grid(grid: Grid | None) -> Grid | None:
    """``(rows, columns)`` of the patches, both at least 1, or None.

    Raises:
        CompressionError: it is something else.
    """
    if grid is None:
        return None
    values = tuple(grid) if isinstance(grid, tuple | list) else ()
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise CompressionError(
            f"the grid must be (rows, columns) of patches, whole numbers of at least 1, got {grid!r}"
        )
    return values[0], values[1]


def grid_shape(patches: int, grid: Grid | None = None) -> Grid:
    """``(rows, columns)`` of a frame: those given, else the most nearly square ones (49 is 7 x 7, 50 is 5 x 10).

    Raises:
        CompressionError: the grid given has another number of patches.
    """
    if grid is None:
        rows = next(r for r in range(math.isqrt(patches), 0, -1) if patches % r == 0)
        return rows, patches // rows
    if grid[0] * grid[1] != patches:
        raise CompressionError(f"a grid of {grid[0]} x {grid[1]} has {grid[0] * grid[1]} patches, a frame {patches}")
    return grid


def grid_cells(shape: Grid, cells: int) -> Tensor:
    """The cell ``[P]`` int64 (CPU) of each patch, in raster order: exactly ``cells`` rectangles of nearly equal size.

    Rows are cut into bands and each band into its share of cells; where ``cells`` is a product that fits the shape this
    is plain average pooling (16 cells of 8 x 8 patches are 4 x 4 of 2 x 2 each).

    Raises:
        CompressionError: ``cells`` is not 1 to P.
    """
    rows, columns = shape
    if not 1 <= cells <= rows * columns:
        raise CompressionError(f"a frame of {rows} x {columns} patches has 1 to {rows * columns} cells, not {cells}")
    parts, first = [], 0
    for height, share in _bands(rows, columns, cells):
        parts.append((first + torch.arange(columns) * share // columns).repeat(height))
        first += share
    return torch.cat(parts)


@lru_cache(maxsize=4096)
def _bands(rows: int, columns: int, cells: int) -> tuple[tuple[int, int], ...]:
    """The height and the number of cells of each band, so that sizes are most nearly equal, then shapes most square."""
    best: tuple[int, int] | None = None
    chosen: tuple[tuple[int, int], ...] = ()
    for bands in range(-(-cells // columns), min(rows, cells) + 1):
        first = [i * cells // bands for i in range(bands + 1)]
        # Bands of equal height, or each as high as its share of cells: what is nearer depends on the numbers.
        for edges in ([-(-i * rows // bands) for i in range(bands + 1)], [-(-f * rows // cells) for f in first]):
            tried = tuple((edges[i + 1] - edges[i], first[i + 1] - first[i]) for i in range(bands))
            if min(height for height, _ in tried) < 1:
                continue
            sizes = shapes = 0
            for height, share in tried:
                wide, more = divmod(columns, share)
                for width, many in ((wide, share - more), (wide + 1, more)):
                    sizes += many * (height * width) ** 2
                    shapes += many * (height - width) ** 2
            if best is None or (sizes, shapes) < best:
                best, chosen = (sizes, shapes), tried
    return chosen


class GridCompressor(OfflineCompressor):
    """An offline compressor that knows where each patch lies in the picture.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        grid: Grid | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        self._grid = check_grid(grid)


class SegmentMeanCompressor(GridCompressor):
    """Cuts the time covered into ``S = m // P`` segments of equal length and keeps the mean of each patch in each.

    A frame belongs to the segment of its middle. Segments without a frame keep nothing, so at most ``S * P`` tokens are
    kept. Below one frame (m < P) there is one segment, and its patches are pooled into m cells of the grid.
    ``gap_seconds`` is ignored: the segments are blind to what was not seen.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    def _group(self, window: Window, limit: int) -> Tensor:
        patches = window.shape[1]
        device = window.tokens.device
        if limit < patches:
            return grid_cells(grid_shape(patches, self._grid), limit).to(device)[window.patch]
        segments = limit // patches
        begin, end = window.start_seconds.min(), window.end_seconds.max()
        middle = (window.start_seconds + window.end_seconds) / 2
        # No mean of a span lies at the very end, but rounding may put it there.
        segment = ((middle - begin) / (end - begin) * segments).long().clamp(0, segments - 1)
        return segment * patches + window.patch


class SpatialPoolCompressor(GridCompressor):
    """Averages the patches of each frame over as many cells of the grid as the budget allows; exactly m tokens.

    Frames get ``m // T`` cells or one more. Below one token a frame (m < T), each frame is one mean, and frames that
    follow one another are averaged into m segments, equal in frames but for one. ``gap_seconds`` is ignored.

    Args:
        budget, gap_seconds, keep_assignment: see :class:`Compressor`.
        grid: ``(rows, columns)`` of the patches; None: as nearly square as P allows.
    """

    exact_budget: ClassVar[bool] = True

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        shape = grid_shape(patches, self._grid)
        device = window.tokens.device
        place = window.frame * patches + window.patch
        if not torch.equal(place, torch.arange(frames * patches, device=device)):
            return pool_scattered(window, limit, shape)
        if limit < frames:
            return window.frame * limit // frames
        first = torch.arange(frames + 1) * limit // frames
        count = first[1:] - first[:-1]
        table = torch.stack([grid_cells(shape, cells) for cells in (int(count.min()), int(count.max()))])
        cell = table[(count > count.min()).long()].to(device)
        return (first[:-1].to(device)[:, None] + cell).reshape(-1)


def pool_scattered(window: Window, limit: int, shape: Grid) -> Tensor:
    """Spatial pooling of tokens that are no full grid, such as runs of patches: at most ``limit`` groups, ``[n]``.

    Tokens of one frame (of runs: of one start) and one cell of the grid go together; the grid is the finest that keeps
    to the limit. Where one cell a frame is still too many, frames that follow one another go together too.

    Raises:
        CompressionError: a token has no patch of its own (-1), so that nobody knows where it lies.
    """
    patches = shape[0] * shape[1]
    mixed = int((window.patch < 0).sum())
    if mixed:
        raise CompressionError(
            f"{mixed} of {len(window.tokens)} tokens mix several patches, so they cannot be pooled by place; "
            f"give a first stage that merges within a patch, such as 'patch-runs'"
        )
    group: Tensor
    for cells in range(patches, 0, -1):
        cell = grid_cells(shape, cells).to(window.tokens.device)
        found, group = torch.unique(window.frame * patches + cell[window.patch], return_inverse=True)
        if len(found) <= limit:
            return group
    found, group = torch.unique(window.frame, return_inverse=True)
    return group * limit // len(found)
