"""Batched Ward merging beside the exact one, and the promises of the assignment that attention uses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.compressors.base import Compressor
from csat_fusion.compressors.batched import BatchedWardCompressor, group_sums, ward_assignment
from csat_fusion.compressors.rounds import Merges, squared_distances
from csat_fusion.compressors.ward import WardCompressor
from csat_fusion.errors import CompressionError


def make_frames(count: int, patches: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A scene of which some patches move, with a cut every 15 frames."""
    generator = torch.Generator().manual_seed(seed)
    base, frames = torch.randn(patches, width, generator=generator, dtype=dtype), []
    for t in range(count):
        moved = torch.rand(patches, 1, generator=generator) < 0.3
        base = torch.where(moved, base + 0.7 * torch.randn(patches, width, generator=generator, dtype=dtype), base)
        if t % 15 == 14:
            base = torch.randn(patches, width, generator=generator, dtype=dtype)
        frames.append(base + 0.3 * torch.randn(patches, width, generator=generator, dtype=dtype))
    return frames


def feed(compressor: Compressor, frames: list[Tensor], step: float = 0.5) -> Compressor:
    for t, frame in enumerate(frames):
        compressor.update(frame, t * step, t * step + 0.5)
    return compressor


def squared_error(compressor: Compressor, frames: list[Tensor]) -> float:
    back = compressor.result().tokens[compressor.assignment()]
    return float((back - torch.cat(frames)).square().sum())


def partition(group: Tensor) -> set[frozenset[int]]:
    return {frozenset((group == k).nonzero()[:, 0].tolist()) for k in group.unique()}


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 30),
    patches=st.integers(1, 8),
    width=st.integers(1, 6),
    budget=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_without_a_limit_in_time_it_is_the_greedy_algorithm(
    count: int, patches: int, width: int, budget: int, seed: int
) -> None:
    frames = make_frames(count, patches, width, seed)
    exact = WardCompressor(budget, gap_seconds=math.inf, keep_assignment=True)
    batched = BatchedWardCompressor(budget, gap_seconds=math.inf, keep_assignment=True)
    feed(exact, frames)
    feed(batched, frames)
    assert partition(exact.assignment()) == partition(batched.assignment())


@pytest.mark.parametrize(("gap_seconds", "step"), [(1.0, 0.5), (0.5, 1.0), (0.0, 2.0)])
def test_with_a_limit_its_squared_error_is_within_two_percent_of_the_exact_form(
    gap_seconds: float, step: float
) -> None:
    """At a step of 2 s frames lie apart by more than the gap, so most merging is what the number forces."""
    for seed, budget in enumerate((20, 40, 90)):
        frames = make_frames(40, 16, 24, seed)
        exact = WardCompressor(budget, gap_seconds=gap_seconds, keep_assignment=True)
        batched = BatchedWardCompressor(budget, gap_seconds=gap_seconds, keep_assignment=True)
        ratio = squared_error(feed(batched, frames, step), frames) / squared_error(feed(exact, frames, step), frames)
        assert 0.98 < ratio < 1.02


def test_unseen_time_within_a_token_is_at_most_the_gap_while_other_pairs_are_left() -> None:
    picture, other = torch.zeros(4, 8), torch.full((4, 8), 5.0)
    compressor = BatchedWardCompressor(6, gap_seconds=1.0)
    feed(compressor, [picture if not 10 <= t < 20 else other for t in range(30)])
    got = compressor.result()
    assert not bool(((got.start_seconds < 5) & (got.end_seconds > 10)).any())


def test_the_budget_comes_before_the_gap() -> None:
    compressor = BatchedWardCompressor(2, gap_seconds=1.0)
    for t, value in ((0.0, 0.0), (100.0, 10.0), (200.0, 11.0)):
        compressor.update(torch.full((1, 3), value), t, t + 1, weight=2.0 if t == 0 else 1.0)
    got = compressor.result()
    assert got.weight.tolist() == [2.0, 2.0]
    assert got.start_seconds.tolist() == [0.0, 100.0]
    assert got.end_seconds.tolist() == [1.0, 201.0]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 4),
    n=st.integers(1, 60),
    budget=st.integers(1, 30),
    chunk=st.sampled_from([None, 1, 7, 100]),
    gap_seconds=st.sampled_from([0.0, 1.0, math.inf]),
    padded=st.booleans(),
    seed=st.integers(0, 999),
)
def test_an_assignment_has_all_groups_and_each_row_is_as_if_alone(
    batch: int, n: int, budget: int, chunk: int | None, gap_seconds: float, padded: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, n, 4, generator=generator, dtype=torch.float64)
    weight = torch.rand(batch, n, generator=generator) + 0.5
    if padded:
        weight[torch.rand(batch, n, generator=generator) < 0.3] = 0.0
    start = torch.arange(n).double().repeat(batch, 1) * 1.5
    options: dict[str, Any] = {"gap_seconds": gap_seconds, "chunk": chunk}
    group = ward_assignment(tokens, budget, weight=weight, start_seconds=start, end_seconds=start + 1, **options)
    assert group.shape == (batch, n)
    assert group.dtype == torch.int64
    for row in range(batch):
        live = weight[row] > 0
        if n > budget:
            want = min(int(live.sum()), budget)
            assert group[row][live].unique().tolist() == list(range(want))
            assert (group[row][~live] == 0).all()
        alone = ward_assignment(
            tokens[row : row + 1],
            budget,
            weight=weight[row : row + 1],
            start_seconds=start[row : row + 1],
            end_seconds=start[row : row + 1] + 1,
            **options,
        )
        assert torch.equal(alone[0], group[row])


def test_padding_changes_nothing_for_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 40, 6, generator=generator)
    weight = torch.ones(1, 50)
    weight[:, 40:] = 0
    padded = torch.cat([tokens, 1e9 * torch.ones(1, 10, 6)], dim=1)
    assert torch.equal(ward_assignment(tokens, 8), ward_assignment(padded, 8, weight=weight)[:, :40])


def test_not_more_tokens_than_the_budget_stay_as_they_are() -> None:
    group = ward_assignment(torch.zeros(2, 5, 3), 5)
    assert group.tolist() == [list(range(5))] * 2
    group[0, 0] = 3  # its own memory
    assert group[1, 0] == 0


@pytest.mark.parametrize("value", [0.0, 1.0, 3e-30, 1e15])
def test_equal_tokens_take_few_rounds(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    one = Merges._merge_round
    monkeypatch.setattr(Merges, "_merge_round", lambda self, share: (rounds.append(1), one(self, share))[1])
    tokens = torch.full((1, 400, 8), value)
    group = ward_assignment(tokens, 10, chunk=400)
    assert len(group.unique()) == 10
    assert len(rounds) < 40


def test_it_merges_the_alike_and_weighs_them() -> None:
    tokens = torch.tensor([[[0.0], [10.0], [0.2], [10.1], [30.0]]])
    assert ward_assignment(tokens, 3)[0].tolist() == [0, 1, 0, 1, 2]
    # A heavy token is dear to move: 0 and 1 are near, but 4 and 6 cost less to merge.
    row = torch.tensor([[[0.0], [1.0], [4.0], [6.0]]])
    assert ward_assignment(row, 3)[0].tolist() == [0, 0, 1, 2]
    assert ward_assignment(row, 3, weight=torch.tensor([[100.0, 100, 1, 1]]))[0].tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_choose_as_float32_does(dtype: torch.dtype) -> None:
    tokens = torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    want = ward_assignment(tokens.float(), 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ward_assignment(tokens, 20), want)


def test_group_sums_are_weighted_means() -> None:
    generator = torch.Generator().manual_seed(2)
    tokens, weight = torch.randn(2, 9, 4, generator=generator), torch.rand(2, 9, generator=generator)
    group = torch.randint(0, 3, (2, 9), generator=generator)
    group[:, :3] = torch.arange(3)
    mean, total = group_sums(tokens, weight, group, 4)
    for b in range(2):
        for k in range(3):
            mine = (group[b] == k).numpy()
            want = np.average(tokens[b].numpy()[mine], axis=0, weights=weight[b].numpy()[mine])
            np.testing.assert_allclose(mean[b, k], want, atol=1e-6)
        assert mean[b, 3].tolist() == [0.0] * 4
        assert total[b, 3] == 0


def test_distances_are_symmetric_to_the_last_bit() -> None:
    tokens = torch.randn(3, 50, 33, generator=torch.Generator().manual_seed(3)) + 100
    square = squared_distances(tokens)
    assert torch.equal(square, square.mT)
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    want = torch.cdist(centred, centred).square() / centred.abs().amax(dim=(1, 2), keepdim=True).square()
    torch.testing.assert_close(square, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": torch.zeros(4, 3)}, r"floating point \[B, n, d\], each at least 1, got torch\.float32 \[4, 3\]"),
        ({"tokens": torch.zeros(1, 0, 3)}, r"\[1, 0, 3\]"),
        ({"tokens": torch.zeros(1, 4, 3, dtype=torch.int64)}, r"torch\.int64"),
        ({"tokens": torch.full((1, 4, 3), math.nan)}, "finite, got NaN or infinity"),
        ({"budget": 0}, "the budget must be a whole number of tokens, at least 1, got 0"),
        ({"budget": None}, "at least 1, got None"),
        ({"budget": 2.0}, r"at least 1, got 2\.0"),
        ({"chunk": 0}, "the chunk must be a whole number of tokens, at least 1, got 0"),
        ({"weight": torch.ones(1, 3)}, r"weight must be numbers \[1, 4\] on cpu, got torch\.float32 \[1, 3\]"),
        ({"weight": -torch.ones(1, 4)}, r"weights must be at least 0, got -1\.0"),
        ({"weight": torch.full((1, 4), math.inf)}, "finite"),
        ({"gap_seconds": 1.0}, r"a gap of 1\.0 s needs start_seconds and end_seconds"),
        ({"gap_seconds": math.nan}, "gap_seconds must be at least 0, got nan"),
        ({"share": 0.0}, r"share must be above 0 and at most 1, got 0\.0"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"tokens": torch.zeros(1, 4, 3), "budget": 2}
    ward_assignment(**good)
    with pytest.raises(CompressionError, match=message):
        ward_assignment(**{**good, **change})
    if "share" in change:
        with pytest.raises(CompressionError, match=message):
            BatchedWardCompressor(4, share=change["share"])
