"""Closed-loop runs of patches, against merging one pair after the other in plain loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.compressors.patch_runs import PatchRunCompressor
from csat_fusion.errors import CompressionError

Run = list[int]  # indices of the frames of a run of one patch


def one_by_one(
    tokens: npt.NDArray[np.float64],
    times: list[tuple[float, float]],
    budget: int,
    gap_seconds: float,
    merge_from: int = 0,
) -> list[tuple[int, Run]]:
    """Ward's merging of neighbours of a patch, the cheapest first, after every frame of ``tokens [T, P, d]``."""
    patches = tokens.shape[1]
    runs: list[list[Run]] = [[] for _ in range(patches)]

    def price(p: int, a: Run, b: Run, gap: bool = True) -> float:
        if gap and times[b[0]][0] - max(times[t][1] for t in a) > gap_seconds + 1e-9:
            return np.inf
        difference = tokens[a, p].mean(axis=0) - tokens[b, p].mean(axis=0)
        return len(a) * len(b) / (len(a) + len(b)) * float(difference @ difference)

    for t in range(len(tokens)):
        for p in range(patches):
            runs[p].append([t])
        while t >= merge_from and sum(map(len, runs)) > max(budget, patches):
            pairs = [(price(p, a, b), p, i) for p in range(patches) for i, (a, b) in enumerate(pairwise(runs[p]))]
            cost, p, i = min(pairs)
            if np.isinf(cost):
                weights = [(len(run), p, i) for p in range(patches) for i, run in enumerate(runs[p]) if runs[p][1:]]
                _, p, i = min(weights)
                before = price(p, runs[p][i - 1], runs[p][i], gap=False) if i else np.inf
                after = price(p, runs[p][i], runs[p][i + 1], gap=False) if i + 1 < len(runs[p]) else np.inf
                i = i - 1 if before <= after else i
            runs[p][i : i + 2] = [runs[p][i] + runs[p][i + 1]]
    return [(p, run) for p in range(patches) for run in runs[p]]


def stream(
    count: int, patches: int, seed: int, hole_every: int, width: int = 4
) -> tuple[Tensor, list[tuple[float, float]]]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, patches, width, generator=generator, dtype=torch.float64)
    for t in range(1, count):
        if torch.rand(1, generator=generator) < 0.6:
            tokens[t] = tokens[t - 1] + 0.2 * tokens[t]
    times, now = [], 0.0
    for t in range(count):
        now += 5.0 if hole_every and t % hole_every == hole_every - 1 else 0.0
        times.append((now, now + 0.5))
        now += 0.5
    return tokens, times


def feed(compressor: PatchRunCompressor, tokens: Tensor, times: list[tuple[float, float]]) -> PatchRunCompressor:
    for frame, span in zip(tokens, times, strict=True):
        compressor.update(frame, *span)
    return compressor


@settings(max_examples=100, deadline=None)
@example(count=5, patches=4, budget=7, seed=1, hole_every=0)  # a merge makes the pair beside it cheaper
@given(
    count=st.integers(1, 20),
    patches=st.integers(1, 5),
    budget=st.integers(1, 30),
    seed=st.integers(0, 999),
    hole_every=st.sampled_from([0, 0, 1, 2, 4]),
)
def test_rounds_of_merges_equal_one_merge_after_the_other(
    count: int, patches: int, budget: int, seed: int, hole_every: int
) -> None:
    tokens, times = stream(count, patches, seed, hole_every)
    budget = max(budget, patches)
    compressor = PatchRunCompressor(budget, nearness=0, gap_seconds=1.0, keep_assignment=True)
    feed(compressor, tokens, times)
    assignment = compressor.assignment().reshape(count, patches)
    found = {(p, tuple(torch.nonzero(assignment[:, p] == k).squeeze(1).tolist())) for k, p in pairs(assignment)}
    assert found == {(p, tuple(run)) for p, run in one_by_one(tokens.numpy(), times, budget, 1.0)}


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 30), patches=st.integers(1, 3), budget=st.integers(3, 20), seed=st.integers(0, 999))
def test_a_round_of_many_merges_too(count: int, patches: int, budget: int, seed: int) -> None:
    """A stream alone gives few merges to a round, most of different patches; here all come at once."""
    tokens, times = stream(count, patches, seed, 0, width=1)  # on a line, merges often make others cheaper
    compressor = PatchRunCompressor(count * patches, nearness=0, keep_assignment=True)
    feed(compressor, tokens[:-1], times[:-1])
    compressor._budget = budget
    feed(compressor, tokens[-1:], times[-1:])
    assignment = compressor.assignment().reshape(count, patches)
    found = {(p, tuple(torch.nonzero(assignment[:, p] == k).squeeze(1).tolist())) for k, p in pairs(assignment)}
    expected = one_by_one(tokens.numpy(), times, budget, 1.0, merge_from=count - 1)
    assert found == {(p, tuple(run)) for p, run in expected}


def test_two_merges_next_door_may_leave_a_pair_that_is_cheaper_than_either() -> None:
    """0.4, -0.4 (cost 0.32) and 1.05, 0.15 (0.41) leave means 0 and 0.6 (0.36), before the 0.62 of the other patch."""
    tokens = torch.tensor([[0.4, 0.0], [-0.4, 1.113], [1.05, 50.0], [0.15, 100.0]])[..., None]
    compressor = PatchRunCompressor(8, nearness=0)
    times = [(float(t), t + 1.0) for t in range(4)]
    feed(compressor, tokens[:3], times[:3])
    compressor._budget = 5
    assert sorted(feed(compressor, tokens[3:], times[3:]).result().patch.tolist()) == [0, 1, 1, 1, 1]


def pairs(assignment: Tensor) -> set[tuple[int, int]]:
    return {(int(k), p) for p in range(assignment.shape[1]) for k in assignment[:, p]}


def test_the_near_path_costs_little_fidelity_and_keeps_the_budget() -> None:
    tokens, times = stream(120, 6, 0, 0)

    def lost(nearness: float) -> float:
        compressor = feed(PatchRunCompressor(90, nearness=nearness, keep_assignment=True), tokens, times)
        assert len(compressor.result()) == 90
        places = torch.arange(89)  # the costs that are kept are those of the runs as they are
        torch.testing.assert_close(compressor._cost[:-1], compressor._pairs(places))
        kept = compressor.result().tokens[compressor.assignment()].reshape(tokens.shape)
        return float((kept - tokens).square().sum())

    whole = float((tokens - tokens.mean(dim=0)).square().sum())
    assert lost(0.5) <= 1.05 * lost(0)
    assert lost(0) < 0.5 * whole


def test_a_drift_ends_a_run_however_slow_it_is() -> None:
    """Closed loop: what each step hides from the previous frame adds up against the mean."""
    steps = torch.arange(200, dtype=torch.float64)[:, None, None].expand(200, 1, 2) * 0.01
    still = torch.zeros(200, 1, 2, dtype=torch.float64)
    tokens = torch.cat([steps, still], dim=1)
    compressor = feed(PatchRunCompressor(11), tokens, [(float(t), t + 1.0) for t in range(200)])
    patch = compressor.result().patch
    assert int((patch == 0).sum()) == 10
    assert int((patch == 1).sum()) == 1


def test_below_one_frame_neighbouring_patches_are_pooled() -> None:
    compressor = PatchRunCompressor(4, keep_assignment=True)
    frame = torch.arange(16.0)[:, None].expand(16, 2)
    for t in range(3):
        compressor.update(frame + t, t, t + 1)
    got = compressor.result()
    assert got.tokens[:, 0].tolist() == [3.5, 5.5, 11.5, 13.5]  # 2 x 2 cells of the 4 x 4 grid, plus 1
    assert got.weight.tolist() == [12.0] * 4
    assert got.patch.tolist() == [-1] * 4
    rows = [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2
    assert compressor.assignment().tolist() == rows * 3
    assert PatchRunCompressor(4, grid=(1, 16)).gap_seconds == 1.0


def test_a_gap_is_not_bridged_while_other_runs_can_merge() -> None:
    tokens = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(3))
    tokens[6:] = tokens[:6]  # the same again after the gap
    times = [(t + (60.0 if t >= 6 else 0.0), t + 1.0 + (60.0 if t >= 6 else 0.0)) for t in range(12)]
    got = feed(PatchRunCompressor(4, gap_seconds=2), tokens, times).result()
    assert float((got.end_seconds - got.start_seconds).max()) == 6.0
    assert len(feed(PatchRunCompressor(2, gap_seconds=2), tokens, times).result()) == 2  # the budget comes first


def test_half_precision_input_keeps_means_in_float32() -> None:
    compressor = PatchRunCompressor(1)
    for t in range(1200):  # a running mean in float16 would stand still long before
        compressor.update(torch.full((1, 1), 1.0 if t < 600 else 2.0, dtype=torch.float16), t, t + 1)
    assert compressor.result().tokens.item() == 1.5


def test_bad_nearness_and_grid_are_named() -> None:
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(CompressionError, match=f"nearness must be from 0 to 1, got {bad}"):
            PatchRunCompressor(4, nearness=bad)
    with pytest.raises(CompressionError, match=r"grid must be \(rows, columns\).*got \(0, 4\)"):
        PatchRunCompressor(4, grid=(0, 4))
    compressor = PatchRunCompressor(4, grid=(2, 4))
    compressor.update(torch.zeros(9, 2), 0, 1)
    with pytest.raises(CompressionError, match="a grid of 2 x 4 has 8 patches, a frame 9"):
        compressor.result()
