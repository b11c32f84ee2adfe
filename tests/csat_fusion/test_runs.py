"""Runs of neighbours in time: the streaming compressor and the function over whole segments."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion.compressors.runs import RunCompressor, merge_runs
from csat_fusion.errors import CompressionError


def segment(frames: int, seed: int = 0, width: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    embedding = np.cumsum(rng.normal(size=(frames, width)), axis=0)
    weight = rng.integers(1, 5, size=frames).astype(np.float64) + rng.random(frames) / 100
    end = np.cumsum(rng.integers(1, 5, size=frames) / 2)
    return embedding, weight, np.concatenate([[0.0], end[:-1]]), end


def greedy(embedding: np.ndarray, weight: np.ndarray, budget: int, max_cost: float | None) -> list[list[int]]:
    """The members of each run, found by recomputing every mean at every step."""
    runs = [[i] for i in range(len(embedding))]

    def cost(a: list[int], b: list[int]) -> float:
        wa, wb = weight[a].sum(), weight[b].sum()
        difference = np.average(embedding[a], axis=0, weights=weight[a]) - np.average(
            embedding[b], axis=0, weights=weight[b]
        )
        return float(wa * wb / (wa + wb) * difference @ difference)

    while len(runs) > 1:
        costs = [cost(a, b) for a, b in pairwise(runs)]
        i = int(np.argmin(costs))
        if len(runs) <= budget and (max_cost is None or costs[i] > max_cost):
            break
        runs[i : i + 2] = [runs[i] + runs[i + 1]]
    return runs


@settings(max_examples=80, deadline=None)
@given(
    frames=st.integers(1, 25),
    seed=st.integers(0, 10**6),
    budget=st.integers(1, 12),
    max_cost=st.sampled_from([None, 0.0, 5.0, 1e9]),
)
def test_merges_the_cheapest_neighbours_first(frames: int, seed: int, budget: int, max_cost: float | None) -> None:
    embedding, weight, start, end = segment(frames, seed)
    got = merge_runs(embedding, weight, start, end, budget, max_cost=max_cost)
    want = greedy(embedding, weight, budget, max_cost)
    assert len(got) == len(want)
    for k, members in enumerate(want):
        np.testing.assert_allclose(got.tokens[k], np.average(embedding[members], axis=0, weights=weight[members]))
        assert got.weight[k].item() == pytest.approx(weight[members].sum(), rel=1e-6)
        assert got.start_seconds[k].item() == start[members[0]]
        assert got.end_seconds[k].item() == end[members[-1]]
    # the spans partition the covered time
    np.testing.assert_array_equal(got.start_seconds[1:], got.end_seconds[:-1])
    assert got.span == (start[0], end[-1])


def test_nothing_to_merge_gives_back_the_input() -> None:
    embedding, weight, start, end = segment(5)
    got = merge_runs(torch.from_numpy(embedding).float(), weight, start, end, 9)
    assert got.tokens.dtype == torch.float32
    assert torch.equal(got.tokens, torch.from_numpy(embedding).float())
    assert got.patch.tolist() == [0] * 5


def test_a_hole_in_time_is_crossed_only_when_the_budget_demands_it() -> None:
    embedding = np.array([[0.0], [0.0], [9.0], [5.0]])
    start = np.array([0.0, 50.0, 51.0, 52.0])
    args = (embedding, np.ones(4), start, start + 1)
    assert merge_runs(*args, 3).start_seconds.tolist() == [0.0, 51.0, 52.0]
    assert merge_runs(*args, 3, gap_seconds=1.0).start_seconds.tolist() == [0.0, 50.0, 51.0]
    assert merge_runs(*args, 2, gap_seconds=1.0, max_cost=math.inf).start_seconds.tolist() == [0.0, 50.0]
    assert merge_runs(*args, 1, gap_seconds=1.0).span == (0.0, 53.0)


def test_several_hundred_frames_are_fast_and_exact() -> None:
    embedding, weight, start, end = segment(400, width=64)
    got = merge_runs(embedding, weight, start, end, 37)
    assert len(got) == 37
    assert got.total_weight == pytest.approx(weight.sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": np.zeros((0, 4))}, r"got torch\.float64 \[0, 4\]"),
        ({"embedding": np.zeros((3, 4), dtype=np.int64)}, r"got torch\.int64"),
        ({"embedding": np.full((3, 4), np.nan)}, "embedding 0"),
        ({"weight": [1, 2]}, r"weight must be \[3\]"),
        ({"weight": [1, 0, 1]}, "weight 1 must be finite and above 0, got 0.0"),
        ({"end_seconds": [1, 1, 3]}, r"span 1 .* \[1\.0, 1\.0\)"),
        ({"start_seconds": [0, 1, 0.5]}, "0.5 s after 1.0 s"),
        ({"budget": 0}, "at least 1, got 0"),
        ({"budget": 2.0}, r"got 2\.0"),
        ({"max_cost": -1.0}, r"max_cost must be at least 0, got -1\.0"),
        ({"gap_seconds": math.nan}, "gap_seconds must be at least 0, got nan"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "embedding": np.zeros((3, 4)),
        "weight": [1, 1, 1],
        "start_seconds": [0, 1, 2],
        "end_seconds": [1, 2, 3],
        "budget": 2,
    }
    merge_runs(**good)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=message):
        merge_runs(**{**good, **change})  # type: ignore[arg-type]


def test_streaming_runs_find_the_shots() -> None:
    generator = torch.Generator().manual_seed(0)
    compressor = RunCompressor(3)
    pictures = torch.randn(3, 1, 32, generator=generator)
    for t in range(30):
        noise = 0.05 * torch.randn(1, 32, generator=generator)
        compressor.update(pictures[0 if t < 7 else 1 if t < 22 else 2] + noise, t * 0.5, t * 0.5 + 0.5)
    got = compressor.result()
    assert got.start_seconds.tolist() == [0.0, 3.5, 11.0]
    assert got.weight.tolist() == [7.0, 15.0, 8.0]


def test_runs_of_patches_need_a_budget_of_a_frame() -> None:
    with pytest.raises(CompressionError, match=r"budget of 4 is less than the 5 tokens"):
        RunCompressor(4).update(torch.zeros(5, 3), 0, 1)


def test_where_gaps_lie_between_all_the_lightest_goes_to_its_cheaper_neighbour() -> None:
    start = np.array([0.0, 100.0, 200.0])
    for middle, starts in ((1.0, [0.0, 200.0]), (9.0, [0.0, 100.0])):
        embedding = np.array([[0.0], [middle], [10.0]])
        got = merge_runs(embedding, [2.0, 1.0, 2.0], start, start + 1, 2, gap_seconds=1.0)
        assert got.start_seconds.tolist() == starts
