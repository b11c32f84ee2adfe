"""DFMR-style pooling: finer grids where a frame varies more."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.compressors.dfmr import DfmrCompressor
from csat_fusion.compressors.pooling import grid_cells

LEVELS = [1, 4, 9, 36]  # of a grid of 6 x 6: factors 6 (to 4: 2 x 2, 3: 2 x 2), 2, 1


def counts(budget: int, tokens: Tensor) -> list[int]:
    compressor = DfmrCompressor(budget)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    got = compressor.result()
    return [int((got.start_seconds == t).sum()) for t in range(len(tokens))]


def stream(frames: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(frames, 1, 1, generator=generator) ** 3
    return (scale * torch.randn(frames, 36, 4, generator=generator)).double()


def deviation(frame: Tensor, cells: int) -> float:
    """The mean over windows of the deviation within, each window as often as it has patches."""
    cell, total = grid_cells((6, 6), cells), 0.0
    for k in range(cells):
        inside = frame[cell == k]
        square = (inside - inside.mean(dim=0)).square().sum(dim=1).mean()
        total += math.sqrt(float(square)) * len(inside)
    return total / len(frame)


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 6), budget=st.integers(6, 200), seed=st.integers(0, 99))
def test_one_threshold_explains_the_grids_of_all_frames(frames: int, budget: int, seed: int) -> None:
    """As published: each frame has the coarsest grid whose deviation is below the threshold; one may be between two."""
    tokens = stream(frames, seed)
    budget = min(budget, frames * 36 - 1)
    found = counts(budget, tokens)
    assert sum(found) == budget
    between = [t for t, count in enumerate(found) if count not in LEVELS]
    assert len(between) <= 1
    steps = []  # what each refinement that was made, and each that was not, would have taken away
    for frame, count in zip(tokens, found, strict=True):
        below = [deviation(frame, level) for level in LEVELS]
        reached = sum(level <= count for level in LEVELS) - 1
        steps.append((min(below[:reached], default=math.inf), below[reached]))
    threshold = min(made for made, _ in steps)
    for t, (_, left) in enumerate(steps):
        assert t in between or left <= threshold + 1e-9


def test_a_plain_frame_is_one_token_and_a_rich_one_keeps_its_patches() -> None:
    tokens = torch.zeros(3, 36, 4)
    tokens[1] = torch.randn(36, 4, generator=torch.Generator().manual_seed(0))
    assert counts(38, tokens) == [1, 36, 1]
    assert counts(3, tokens) == [1, 1, 1]


def test_below_one_token_a_frame_neighbours_in_time_are_averaged() -> None:
    tokens = stream(6, 0)
    compressor = DfmrCompressor(2)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    torch.testing.assert_close(compressor.result().tokens, tokens.reshape(2, 108, 4).mean(dim=1))


@pytest.mark.parametrize("scale", [1e-30, 1e12])
def test_the_scale_of_the_tokens_does_not_matter(scale: float) -> None:
    tokens = stream(5, 3)
    assert counts(60, tokens * scale) == counts(60, tokens)


def test_deviations_of_windows_are_averaged_not_their_squares() -> None:
    checkers = (torch.arange(36) % 2 * 2.0 - 1.0)[:, None]
    corner = torch.where(grid_cells((6, 6), 4)[:, None] == 0, 3 * checkers, 0.0)  # 3 in one window of four: mean 0.75
    assert counts(13, torch.stack([corner, checkers])) == [4, 9]
