"""EVS-style pruning: which tokens stay, where the others go, gaps, zero tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.compressors.evs import EvsCompressor


def filled(budget: int, tokens: Tensor, starts: list[float] | None = None, **options: Any) -> EvsCompressor:
    compressor = EvsCompressor(budget, keep_assignment=True, **options)
    for t, frame in enumerate(tokens):
        start = t if starts is None else starts[t]
        compressor.update(frame, start, start + 1)
    return compressor


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 12), patches=st.integers(1, 5), more=st.integers(0, 40), seed=st.integers(0, 99))
def test_the_least_similar_stay_and_the_others_go_to_the_one_before(
    frames: int, patches: int, more: int, seed: int
) -> None:
    tokens = torch.randn(frames, patches, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    budget = min(patches + more, frames * patches)
    compressor = filled(budget, tokens)
    got, assignment = compressor.result(), compressor.assignment().reshape(frames, patches)
    cosine = torch.cosine_similarity(tokens[1:], tokens[:-1], dim=-1).flatten()
    kept = torch.ones(frames, patches, dtype=torch.bool)
    kept[1:] = False
    kept.view(-1)[patches + cosine.argsort()[: budget - patches]] = True
    for p in range(patches):
        last = 0
        for t in range(frames):
            last = t if kept[t, p] else last
            assert torch.equal(got.tokens[assignment[t, p]], tokens[last, p])
            assert got.start_seconds[assignment[t, p]] == last


def test_a_slow_drift_is_not_seen() -> None:
    """Open loop, as published: each step is similar to the last, so what has drifted far is pruned all the same."""
    angle = torch.linspace(0, 3.1, 100)
    drift = torch.stack([angle.cos(), angle.sin()], dim=-1)[:, None]
    jumps = torch.ones(100, 1, 2)
    jumps[::10, :, 0] = -1.0
    compressor = filled(20, torch.cat([drift, jumps], dim=1))
    assert compressor.result().patch.tolist().count(0) == 1


def test_means_and_the_token_itself() -> None:
    tokens = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]], [[0.0, 2.0]], [[0.0, 4.0]]])
    assert filled(2, tokens).result().tokens.tolist() == [[1, 0], [0, 2]]
    assert filled(2, tokens, means=True).result().tokens.tolist() == [[2, 0], [0, 3]]


def test_after_a_gap_a_token_is_kept_first() -> None:
    tokens = torch.ones(6, 1, 2)
    tokens[2, 0, 0] = -1.0
    starts = [0.0, 1.0, 2.0, 3.0, 60.0, 61.0]
    assert filled(2, tokens, starts).result().start_seconds.tolist() == [0.0, 60.0]
    assert filled(2, tokens, starts, gap_seconds=100).result().start_seconds.tolist() == [0.0, 2.0]
    assert filled(1, tokens, starts).result().end_seconds.tolist() == [62.0]  # the budget comes first


def test_zero_tokens_are_alike_and_unlike_all_others() -> None:
    tokens = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])[:, None, None].expand(5, 1, 2)
    assert filled(3, tokens).result().start_seconds.tolist() == [0.0, 2.0, 4.0]
    small = tokens * 1e-40  # squares would vanish
    assert filled(3, small).result().start_seconds.tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("means", [False, True])
def test_below_one_frame_each_cell_is_one_token(means: bool) -> None:
    tokens = torch.arange(3 * 9.0).reshape(3, 9, 1)
    compressor = filled(3, tokens, means=means)
    got = compressor.result()
    assert compressor.assignment().tolist() == [0, 1, 2] * 9  # columns of the 3 x 3 patches
    assert got.weight.tolist() == [9.0] * 3
    assert got.tokens.flatten().tolist() == ([12.0, 13.0, 14.0] if means else [3.0, 4.0, 5.0])
