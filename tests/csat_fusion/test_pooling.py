"""Cells of the grid, segments of time, and pooling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csat_fusion.compressors.base import Compressor, make_compressor
from csat_fusion.compressors.offline import Window
from csat_fusion.compressors.pooling import check_grid, grid_cells, grid_shape, pool_scattered
from csat_fusion.errors import CompressionError


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), cells=st.integers(1, 144))
def test_cells_are_that_many_rectangles_of_nearly_equal_size(rows: int, columns: int, cells: int) -> None:
    cells = min(cells, rows * columns)
    cell = grid_cells((rows, columns), cells).reshape(rows, columns)
    assert torch.unique(cell).tolist() == list(range(cells))
    for k in range(cells):
        y, x = torch.nonzero(cell == k).T
        height, width = int(y.max() - y.min()) + 1, int(x.max() - x.min()) + 1
        assert height * width == len(y)  # a rectangle without holes
        assert len(y) <= 2 * rows * columns / cells  # a band of uneven width has cells of 1 beside cells of 2


def test_cells_of_a_product_are_average_pooling() -> None:
    cell = grid_cells((8, 8), 16).reshape(8, 8)
    expected = torch.arange(16).reshape(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(cell, expected)
    assert grid_cells((3, 3), 3).tolist() == [0, 1, 2] * 3
    assert torch.equal(grid_cells((2, 3), 6), torch.arange(6))
    assert torch.equal(grid_cells((1, 6), 4), torch.tensor([0, 0, 1, 2, 2, 3]))


def test_bad_cells_and_grids_are_named() -> None:
    for cells in (0, 7):
        with pytest.raises(CompressionError, match=f"2 x 3 patches has 1 to 6 cells, not {cells}"):
            grid_cells((2, 3), cells)
    assert grid_shape(49) == (7, 7)
    assert grid_shape(50) == (5, 10)
    assert grid_shape(7) == (1, 7)
    assert grid_shape(8, (4, 2)) == (4, 2)
    with pytest.raises(CompressionError, match="a grid of 4 x 2 has 8 patches, a frame 9"):
        grid_shape(9, (4, 2))
    assert check_grid(None) is None
    for bad in (7, (7,), (7, 0), (True, 7), (7.0, 7), "7x7"):
        with pytest.raises(CompressionError, match="the grid must be"):
            check_grid(bad)  # type: ignore[arg-type]


def filled(
    name: str, budget: int, tokens: torch.Tensor, spans: list[tuple[float, float]], **options: Any
) -> Compressor:
    compressor = make_compressor(name, budget, keep_assignment=True, **options)
    for frame, span in zip(tokens, spans, strict=True):
        compressor.update(frame, *span)
    return compressor


def test_segments_are_equal_in_seconds_not_in_frames() -> None:
    """Eight short frames in the first half of the time, two long ones in the second."""
    spans = [(float(t), t + 1.0) for t in range(8)] + [(8.0, 12.0), (12.0, 16.0)]
    tokens = torch.arange(10.0)[:, None, None].expand(10, 3, 2)
    got = filled("segment-mean", 6, tokens, spans).result()
    assert got.tokens[:, 0].tolist() == [3.5] * 3 + [8.5] * 3
    assert got.start_seconds.tolist() == [0.0] * 3 + [8.0] * 3
    assert got.patch.tolist() == [0, 1, 2] * 2
    # Segments of 16 / 6 s: the fourth, from 8.0 s to 10.7 s, has the middle of one frame, some have none.
    assert len(filled("segment-mean", 18, tokens, spans).result()) < 18


def test_spatial_pooling_is_torch_average_pooling() -> None:
    tokens = torch.randn(5, 64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spans = [(float(t), t + 1.0) for t in range(5)]
    got = filled("spatial-pool", 5 * 16, tokens, spans).result().tokens.reshape(5, 16, 3)
    expected = torch.nn.functional.avg_pool2d(tokens.reshape(5, 8, 8, 3).permute(0, 3, 1, 2), 2)
    order = expected.permute(0, 2, 3, 1).reshape(5, 16, 3)
    # Tokens of one frame have equal spans and patch -1: their order among themselves is that of the cells.
    torch.testing.assert_close(got, order)


def test_spatial_pooling_spreads_what_does_not_divide() -> None:
    tokens = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    spans = [(float(t), t + 1.0) for t in range(4)]
    got = filled("spatial-pool", 18, tokens, spans).result()
    counts = [int((got.start_seconds == t).sum()) for t in range(4)]
    assert counts == [4, 5, 4, 5]
    below = filled("spatial-pool", 2, tokens, spans).result()
    torch.testing.assert_close(below.tokens, tokens.reshape(2, 18, 3).mean(dim=1))


def scattered(frame: list[int], patch: list[int]) -> Window:
    n = len(frame)
    start = torch.tensor(frame, dtype=torch.float64)
    return Window(
        tokens=torch.zeros(n, 2),
        weight=torch.ones(n, dtype=torch.float64),
        start_seconds=start,
        end_seconds=start + 1,
        frame=torch.tensor(frame),
        patch=torch.tensor(patch),
        shape=(max(frame) + 1, 16),
    )


def test_scattered_tokens_are_pooled_by_place_and_start() -> None:
    window = scattered([0, 0, 0, 0, 1, 1, 2], [0, 1, 14, 15, 5, 10, 3])
    group = pool_scattered(window, 5, (4, 4))  # 2 x 2 cells: the corners of frame 0 pair up
    assert group[0] == group[1]
    assert group[2] == group[3]
    assert len(torch.unique(group)) == 5
    assert pool_scattered(window, 3, (4, 4)).tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert pool_scattered(window, 2, (4, 4)).tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert pool_scattered(window, 1, (4, 4)).tolist() == [0] * 7
    with pytest.raises(CompressionError, match="1 of 7 tokens mix several patches"):
        pool_scattered(scattered([0, 0, 0, 0, 1, 1, 2], [0, 1, 14, -1, 5, 10, 3]), 5, (4, 4))
