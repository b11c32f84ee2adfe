"""Two stages as one: budgets, weights and assignment through both, and what cannot be composed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from csat_fusion.compressors.base import make_compressor
from csat_fusion.compressors.budget import Ratio
from csat_fusion.compressors.compose import ComposedCompressor
from csat_fusion.errors import CompressionError


def stream(frames: int = 12, patches: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randn(patches, 6, generator=generator, dtype=torch.float64)
    tokens = scene + 0.05 * torch.randn(frames, patches, 6, generator=generator, dtype=torch.float64)
    tokens[frames // 2 :] += 3.0  # a cut: runs of all patches start together
    return tokens


def filled(tokens: Tensor, budget: Any, **options: Any) -> ComposedCompressor:
    compressor = ComposedCompressor(budget, keep_assignment=True, **options)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1, 2.0)
    return compressor


def test_time_first_then_space() -> None:
    """Two still scenes of 4 x 4 patches in 8 tokens: 2 x 2 cells of each, spans that end at the cut."""
    tokens = stream()
    compressor = filled(tokens, 8, share=0.25)
    got = compressor.result()
    assert got.start_seconds.tolist() == [0.0] * 4 + [6.0] * 4
    assert got.end_seconds.tolist() == [6.0] * 4 + [12.0] * 4
    assert got.weight.tolist() == [2.0 * 6 * 4] * 8
    cells = tokens.reshape(2, 6, 2, 2, 2, 2, 6).mean(dim=(1, 3, 5)).reshape(8, 6)
    torch.testing.assert_close(got.tokens, cells)
    assert compressor.assignment()[:16].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]


@pytest.mark.parametrize("second", ["spatial-pool", "kmeans", "random", "haar"])
@pytest.mark.parametrize("first", ["patch-runs", "evs", "segment-mean", "uniform"])
def test_any_first_stage_within_patches_and_any_second_on_windows(first: str, second: str) -> None:
    compressor = filled(stream(), 10, first=first, second=second, share=0.3)
    got = compressor.result()
    assert len(got) <= 10
    assert got.total_weight == 2.0 * 12 * 16
    weight = torch.bincount(compressor.assignment(), minlength=len(got)) * 2.0
    assert torch.equal(weight.float(), got.weight)
    assert compressor.causal == make_compressor(first, 4).causal


def test_the_first_stage_keeps_the_budget_over_the_share_but_a_frame_at_least() -> None:
    tokens = stream(20)
    for budget, share, expected in ((8, 0.25, 32), (8, 0.9, 16), (40, 0.5, 80)):
        compressor = filled(tokens, budget, share=share, second="kmeans")
        assert len(compressor._first.result()) == expected  # type: ignore[union-attr]
        assert len(compressor.result()) == budget
    whole = filled(tokens, 40, share=1.0)
    alone = make_compressor("patch-runs", 40)
    for t, frame in enumerate(tokens):
        alone.update(frame, t, t + 1, 2.0)
    assert torch.equal(whole.result().tokens, alone.result().tokens)


def test_a_ratio_below_one_frame_still_knows_its_patches() -> None:
    compressor = ComposedCompressor(Ratio(1 / 16), share=0.5)
    for t, frame in enumerate(stream(40)):
        compressor.update(frame, t, t + 1)
        assert len(compressor.result()) <= max(1, t + 1)


def test_what_cannot_be_composed_is_named() -> None:
    for share in (0, 1.1, True, "half"):
        with pytest.raises(CompressionError, match=f"share must be above 0 and at most 1, got {share!r}"):
            ComposedCompressor(4, share=share)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match="'ward' streams"):
        ComposedCompressor(4, second="ward")
    with pytest.raises(CompressionError, match=r"no compressor 'wird' \(did you mean 'ward'\?\)"):
        ComposedCompressor(4, first="wird")
    with pytest.raises(CompressionError, match="PatchRunCompressor has no option 'nearnes'"):
        ComposedCompressor(4, first_options={"nearnes": 1})
    with pytest.raises(CompressionError, match="SpatialPoolCompressor has no option 'gird'"):
        ComposedCompressor(4, second_options={"gird": (2, 2)})
    mixed = filled(stream(), 8, first="ward")
    with pytest.raises(CompressionError, match="mix several patches, so they cannot be pooled by place"):
        mixed.result()
    assert len(filled(stream(), 8, first="ward", second="kmeans").result()) == 8
