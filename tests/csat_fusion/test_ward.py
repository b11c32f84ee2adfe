"""Streaming Ward merging against a reference that recomputes everything, and the promises it makes."""

from __future__ import annotations

import math
import pickle
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion.compressors.budget import Cosine
from csat_fusion.compressors.ward import WardCompressor
from csat_fusion.errors import CompressionError

Frame = tuple[torch.Tensor, float, float, float]
Mode = Literal["mean", "previous"] | None
MODES: tuple[Mode, ...] = (None, "mean")


class Cluster:
    """A merged token of the reference: its members, from which everything is computed anew."""

    def __init__(self, members: list[tuple[npt.NDArray[np.float64], float, float, float, int]]) -> None:
        self.members = members
        self.weight = sum(m[1] for m in members)
        self.mean = sum(m[0] * m[1] for m in members) / self.weight
        self.start = min(m[2] for m in members)
        self.end = max(m[3] for m in members)
        patches = {m[4] for m in members}
        self.patch = patches.pop() if len(patches) == 1 else -1

    def cost(self, other: Cluster) -> float:
        square = float(((self.mean - other.mean) ** 2).sum())
        return self.weight * other.weight / (self.weight + other.weight) * square

    def far(self, other: Cluster, gap_seconds: float) -> bool:
        return max(self.start - other.end, other.start - self.end) > gap_seconds + 1e-9


def reference(frames: list[Frame], budget: int, gap_seconds: float) -> list[Cluster]:
    clusters: list[Cluster] = []
    for tokens, start, end, weight in frames:
        clusters += [Cluster([(row, weight, start, end, p)]) for p, row in enumerate(tokens.double().numpy())]
        while len(clusters) > budget:
            best = (math.inf, -1, -1)
            for i in range(len(clusters)):
                for j in range(i):
                    if not clusters[i].far(clusters[j], gap_seconds):
                        best = min(best, (clusters[i].cost(clusters[j]), i, j))
            _, i, j = best
            if i < 0:
                i = min(range(len(clusters)), key=lambda k: clusters[k].weight)
                j = min((k for k in range(len(clusters)) if k != i), key=lambda k: clusters[i].cost(clusters[k]))
            merged = Cluster(clusters[i].members + clusters[j].members)
            clusters = [c for k, c in enumerate(clusters) if k not in (i, j)] + [merged]
    return clusters


@st.composite
def streams(draw: st.DrawFn) -> list[Frame]:
    """Frames that drift, with cuts, holes in time, overlapping spans and uneven weights."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    patches, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    base = torch.randn(patches, width, generator=generator, dtype=torch.float64)
    frames, now = [], draw(st.sampled_from([0.0, 1000.25]))
    for _ in range(draw(st.integers(1, 9))):
        if draw(st.booleans()):
            base = base + torch.randn(patches, width, generator=generator, dtype=torch.float64)
        tokens = base + 0.3 * torch.randn(patches, width, generator=generator, dtype=torch.float64)
        duration = draw(st.sampled_from([0.25, 0.5, 2.0]))
        # No two weights alike: the lightest token must be one token, or the reference may choose another.
        weight = 1.0 + float(torch.rand((), generator=generator, dtype=torch.float64))
        frames.append((tokens, now, now + duration, weight))
        now += duration * draw(st.sampled_from([0.5, 1.0, 1.0, 4.0, 30.0]))
    return frames


@settings(max_examples=150, deadline=None)
@given(frames=streams(), budget=st.integers(2, 20), gap_seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, math.inf]))
def test_merges_as_the_plain_greedy_algorithm_does(frames: list[Frame], budget: int, gap_seconds: float) -> None:
    compressor = WardCompressor(budget, gap_seconds=gap_seconds)
    for tokens, start, end, weight in frames:
        compressor.update(tokens, start, end, weight)
    got = compressor.result()
    want = reference(frames, budget, gap_seconds)
    # The order of tokens with equal spans is free: compare in the order of their first coordinate.
    want.sort(key=lambda c: float(c.mean[0]))
    order = np.argsort(got.tokens[:, 0].numpy())
    assert len(got) == len(want)
    np.testing.assert_allclose(got.weight.numpy()[order], [c.weight for c in want], rtol=1e-6)
    np.testing.assert_allclose(got.tokens.numpy()[order], np.stack([c.mean for c in want]), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(got.start_seconds.numpy()[order], [c.start for c in want])
    np.testing.assert_array_equal(got.end_seconds.numpy()[order], [c.end for c in want])
    np.testing.assert_array_equal(got.patch.numpy()[order], [c.patch for c in want])


@settings(max_examples=60, deadline=None)
@given(frames=streams(), budget=st.integers(1, 20), fast_path=st.sampled_from(MODES))
def test_tokens_are_the_means_of_what_the_assignment_says(frames: list[Frame], budget: int, fast_path: Mode) -> None:
    compressor = WardCompressor(budget, fast_path=fast_path, keep_assignment=True)
    for tokens, start, end, weight in frames:
        compressor.update(tokens, start, end, weight)
    got, assignment = compressor.result(), compressor.assignment()
    rows = torch.cat([tokens for tokens, *_ in frames])
    weights = torch.tensor([w for tokens, _, _, w in frames for _ in tokens], dtype=torch.float64)
    for k in range(len(got)):
        mine = assignment == k
        mean = (rows[mine] * weights[mine, None]).sum(0) / weights[mine].sum()
        torch.testing.assert_close(got.tokens[k], mean, rtol=0, atol=1e-9)


def test_long_streams_do_not_drift() -> None:
    """Distances follow from distances for thousands of merges; the means stay those of the members, in float32."""
    generator = torch.Generator().manual_seed(0)
    compressor = WardCompressor(24, keep_assignment=True)
    base, frames = torch.randn(9, 16, generator=generator), []
    for t in range(800):
        if t % 100 == 0:
            base = torch.randn(9, 16, generator=generator)
        frames.append(base + 0.2 * torch.randn(9, 16, generator=generator) + 500.0)
        compressor.update(frames[-1], t * 0.5, t * 0.5 + 0.5)
    got, assignment = compressor.result(), compressor.assignment()
    rows = torch.cat(frames).double()
    for k in range(len(got)):
        torch.testing.assert_close(got.tokens[k].double(), rows[assignment == k].mean(0), rtol=0, atol=2e-3)
    table = compressor._table
    live = table.order()
    mean, weight = compressor._mean[torch.from_numpy(live)].double(), torch.from_numpy(table.weight[live])  # type: ignore[index]
    cost = torch.cdist(mean, mean).square() * weight[:, None] * weight / (weight[:, None] + weight)
    got_cost = torch.from_numpy(table.cost[np.ix_(live, live)]).double()
    apart = ~torch.eye(len(live), dtype=torch.bool)
    torch.testing.assert_close(got_cost[apart], cost[apart], atol=1e-2, rtol=1e-3)


def test_the_fast_path_costs_little_fidelity() -> None:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(16, 32, generator=generator)
    frames = []
    for t in range(120):
        moving = t % 16
        base[moving] = torch.randn(32, generator=generator)
        frames.append(base + 0.1 * torch.randn(16, 32, generator=generator))
    error = {}
    for fast_path in MODES:
        compressor = WardCompressor(64, fast_path=fast_path, keep_assignment=True)
        for t, frame in enumerate(frames):
            compressor.update(frame, t * 0.5, t * 0.5 + 0.5)
        back = compressor.result().tokens[compressor.assignment()]
        error[fast_path] = float((back - torch.cat(frames)).square().sum())
    assert error["mean"] < 1.1 * error[None]


def test_the_fast_path_is_taken_and_can_be_switched_off() -> None:
    generator = torch.Generator().manual_seed(2)
    base = torch.randn(8, 16, generator=generator)
    shrinks = {}
    for fast_path in MODES:
        compressor = WardCompressor(12, fast_path=fast_path)
        merges, settle = [], compressor._settle
        compressor._settle = lambda merged, before: (merges.append(len(merged)), settle(merged, before))[1]  # type: ignore[method-assign,assignment]  # noqa: B023
        for t in range(100):
            compressor.update(base + 0.01 * torch.randn(8, 16, generator=generator), t, t + 1)
        shrinks[fast_path] = sum(merges)
    assert shrinks[None] == 100 * 8 - 12
    assert shrinks["mean"] < 0.6 * shrinks[None]


def test_time_between_merged_members_is_never_more_than_the_gap() -> None:
    """The same picture comes back after five seconds of something else: two tokens, not one that claims all of it."""
    picture, other = torch.zeros(4, 8), torch.full((4, 8), 5.0)
    honest, hungry = WardCompressor(6, gap_seconds=1.0), WardCompressor(6, gap_seconds=math.inf)
    for compressor in (honest, hungry):
        for t in range(30):
            compressor.update(picture if not 10 <= t < 20 else other, t * 0.5, t * 0.5 + 0.5)
    early = [s for s, e in zip(honest.result().start_seconds, honest.result().end_seconds, strict=True) if e <= 5.0]
    assert early, "the first five seconds have tokens of their own"
    assert any(
        s == 0 and e == 15 for s, e in zip(hungry.result().start_seconds, hungry.result().end_seconds, strict=True)
    )


def test_the_budget_comes_before_the_gap() -> None:
    compressor = WardCompressor(2, gap_seconds=1.0)
    for t, value in ((0.0, 0.0), (100.0, 10.0), (200.0, 11.0)):
        compressor.update(torch.full((1, 3), value), t, t + 1, weight=2.0 if t == 0 else 1.0)
    got = compressor.result()
    assert got.weight.tolist() == [2.0, 2.0]
    assert got.start_seconds.tolist() == [0.0, 100.0]
    assert got.end_seconds.tolist() == [1.0, 201.0]
    assert got.tokens[1].tolist() == [10.5, 10.5, 10.5]


def test_a_static_hour_is_a_few_tokens_that_cover_it() -> None:
    compressor = WardCompressor(8)
    picture = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    for t in range(3600):
        compressor.update(picture, float(t), t + 1.0)
    got = compressor.result()
    assert len(got) == 8
    assert got.total_weight == 4 * 3600
    assert got.span == (0.0, 3600.0)
    assert torch.isfinite(got.tokens).all()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e14])
def test_finite_input_of_any_size_gives_finite_output(scale: float) -> None:
    compressor = WardCompressor(5)
    generator = torch.Generator().manual_seed(4)
    for t in range(20):
        compressor.update(torch.randn(3, 4, generator=generator) * scale, t, t + 1)
    assert torch.isfinite(compressor.result().tokens).all()


def test_autocast_and_inference_mode_around_it_change_nothing() -> None:
    generator = torch.Generator().manual_seed(5)
    frames = [torch.randn(6, 32, generator=generator) for _ in range(12)]
    plain, wrapped = WardCompressor(10), WardCompressor(10)
    for t, frame in enumerate(frames):
        plain.update(frame, t, t + 1)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode(mode=t % 2 == 0):
            wrapped.update(frame, t, t + 1)
    assert torch.equal(plain.result().tokens, wrapped.result().tokens)
    assert not plain.result().tokens.is_inference()


def test_a_bad_gap_is_refused() -> None:
    with pytest.raises(CompressionError, match="gap_seconds must be at least 0, got nan"):
        WardCompressor(4, gap_seconds=math.nan)


def test_the_fast_path_takes_what_costs_at_most_half_of_the_last_merge() -> None:
    for step, inserted in ((0.60, 3), (0.63, 4)):
        compressor = WardCompressor(2, fast_path="mean", keep_assignment=True)
        for t, value in enumerate((0.0, 4.0, 5.0)):  # 4 and 5 merge at cost 1/2
            compressor.update(torch.tensor([[value]], dtype=torch.float64), t, t + 1)
        compressor.update(torch.tensor([[4.5 + step]], dtype=torch.float64), 3, 4)  # costs 2/3 of the step's square
        assert len(compressor._parent) == inserted


def test_the_fast_path_does_not_reach_over_a_hole_in_time() -> None:
    compressor = WardCompressor(6, gap_seconds=1.0, fast_path="mean")
    generator = torch.Generator().manual_seed(6)
    picture = torch.randn(2, 8, generator=generator)
    for t in range(20):
        start = float(t) if t < 10 else t + 30.0
        picture[1] = torch.randn(8, generator=generator)  # patch 0 stands still, so it always takes the fast path
        compressor.update(picture, start, start + 1)
    got = compressor.result()
    assert compressor._tau > 0
    assert bool(((got.end_seconds <= 10) | (got.start_seconds >= 40)).all())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), gap_seconds=st.sampled_from([0.5, math.inf]))
def test_what_is_remembered_of_the_nearest_stays_true(seed: int, gap_seconds: float) -> None:
    """After frames on the fast path too: a fresh nearest has its true cost, and the least is the least of all pairs."""
    generator = torch.Generator().manual_seed(seed)
    compressor = WardCompressor(9, gap_seconds=gap_seconds, fast_path="mean")
    base = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    for t in range(30):
        noise = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        compressor.update(base + 0.2 * noise, t, t + 1)
        table = compressor._table
        live = np.flatnonzero(table.weight > 0)
        true = np.full_like(table.cost, np.inf)
        for a in live:
            for b in live:
                between = max(table.start[a] - table.end[b], table.start[b] - table.end[a])
                if a != b and between <= gap_seconds + 1e-9:
                    true[a, b] = table.cost[a, b]
        nearest = table.nearest[live]
        fresh = table.nearest_version[live] == table.version[nearest]
        np.testing.assert_allclose(table.nearest_cost[live][fresh], true[live, nearest][fresh], rtol=1e-9, atol=1e-12)
        assert table.nearest_cost.min() <= true.min() + 1e-12


@settings(max_examples=40, deadline=None)
@given(frames=streams(), least=st.sampled_from([0.5, 0.9, 0.99]), gap_seconds=st.sampled_from([1.0, math.inf]))
def test_a_fidelity_holds_for_every_member(frames: list[Frame], least: float, gap_seconds: float) -> None:
    compressor = WardCompressor(Cosine(least), gap_seconds=gap_seconds, keep_assignment=True)
    for tokens, start, end, weight in frames:
        compressor.update(tokens, start, end, weight)
    rows = torch.cat([tokens for tokens, *_ in frames])
    kept = compressor.result().tokens[compressor.assignment()]
    assert float(torch.cosine_similarity(rows, kept, dim=1).min()) >= least - 1e-6
    # and the bound it keeps is one: no member is farther from its mean than the slot says
    table, order = compressor._table, compressor._table.order()
    radius = table.radius[order][compressor.assignment().numpy()]
    angle = torch.arccos(torch.cosine_similarity(rows, kept, dim=1).clamp(-1, 1)).numpy()
    assert (angle <= radius + 1e-6).all()
    np.testing.assert_allclose(table.norm[order], compressor.result().tokens.norm(dim=1), atol=1e-9)


@pytest.mark.parametrize("weight", [1e7, 1e30])
def test_a_fidelity_holds_where_costs_leave_float32(weight: float) -> None:
    generator = torch.Generator().manual_seed(13)
    compressor = WardCompressor(Cosine(0.95), gap_seconds=math.inf, keep_assignment=True)
    base = torch.randn(4, 64, generator=generator)
    frames = [1e14 * (base + 0.2 * torch.randn(4, 64, generator=generator)) for _ in range(12)]
    for t, frame in enumerate(frames):
        compressor.update(frame, t, t + 1, weight)
    kept = compressor.result().tokens.double()[compressor.assignment()]
    cosine = torch.cosine_similarity(torch.cat(frames).double(), kept, dim=1)
    assert float(cosine.min()) >= 0.95 - 1e-6


def test_a_fidelity_merges_what_is_alike_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(7)
    scenes = torch.randn(3, 4, 64, generator=generator)
    compressor = WardCompressor("cosine 0.9", gap_seconds=math.inf)
    for t in range(30):
        compressor.update(scenes[t // 10] + 0.05 * torch.randn(4, 64, generator=generator), t, t + 1)
    got = compressor.result()
    assert len(got) == 12
    assert got.weight.tolist() == [10.0] * 12
    loose = WardCompressor("cosine 0.999", gap_seconds=math.inf)
    for t in range(30):
        loose.update(scenes[t // 10] + 0.05 * torch.randn(4, 64, generator=generator), t, t + 1)
    assert len(loose.result()) > 12


def test_zero_tokens_join_only_zero_tokens_where_a_fidelity_is_kept() -> None:
    compressor = WardCompressor("cosine 0.5", keep_assignment=True)
    for t in range(5):
        compressor.update(torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), t, t + 1)
    got = compressor.result()
    assert sorted(got.tokens[:, 0].tolist()) == [-1.0, 0.0, 1.0]
    assert got.weight.tolist() == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("other", [3, 12, 15])  # along a row, a column and the diagonal of a grid of 4 x 4
def test_a_neighbourhood_keeps_far_patches_apart(other: int) -> None:
    """Two equal pictures far apart: one token each within a cell, one token for both without a limit."""
    pictures = torch.zeros(16, 4, dtype=torch.float64)
    pictures[[0, other]] = 5.0
    pictures += 0.01 * torch.randn(16, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    for options, together in (({"neighbourhood": 1}, False), ({"neighbourhood": 3}, True), ({}, True)):
        compressor = WardCompressor(3, keep_assignment=True, **options)  # type: ignore[arg-type]
        for t in range(4):
            compressor.update(pictures, t, t + 1)
        assert len(compressor.result()) == 3
        assert bool(compressor.assignment()[0] == compressor.assignment()[other]) == together


def test_the_grid_says_who_is_near() -> None:
    row = torch.tensor([[0.0], [9.0], [9.0], [9.0], [0.0], [9.0], [9.0], [9.0]])
    for grid, together in (((2, 4), True), ((1, 8), False)):  # 0 and 4 are neighbours where a row has four
        compressor = WardCompressor(2, neighbourhood=1, grid=grid, keep_assignment=True)
        compressor.update(row + 0.01 * torch.arange(8.0)[:, None], 0, 1)
        assert bool(compressor.assignment()[0] == compressor.assignment()[4]) == together


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"6 patches are no square; give grid=\(rows, columns\)"):
        WardCompressor(4, neighbourhood=1).update(torch.zeros(6, 2), 0, 1)
    with pytest.raises(CompressionError, match="a grid of 2 x 4 must hold the 6 patches"):
        WardCompressor(4, neighbourhood=1, grid=(2, 4)).update(torch.zeros(6, 2), 0, 1)
    with pytest.raises(CompressionError, match="neighbourhood must be a whole number of cells, at least 0, got -1"):
        WardCompressor(4, neighbourhood=-1)
    with pytest.raises(CompressionError, match="fast_path must be None, 'mean' or 'previous', got 'first'"):
        WardCompressor(4, fast_path="first")  # type: ignore[arg-type]


def test_slow_drift_runs_away_from_the_previous_frame_but_not_from_the_mean() -> None:
    generator = torch.Generator().manual_seed(9)
    picture, step = torch.randn(1, 8, generator=generator), 0.2 * torch.randn(1, 8, generator=generator)
    frames = [torch.cat([picture + t * step, torch.randn(1, 8, generator=generator)]) for t in range(60)]
    error = {}
    for anchor in ("mean", "previous"):
        compressor = WardCompressor(20, fast_path=anchor, keep_assignment=True)  # type: ignore[arg-type]
        for t, frame in enumerate(frames):
            compressor.update(frame, t, t + 1)
        back = compressor.result().tokens[compressor.assignment()[::2]]
        error[anchor] = float((back - torch.stack([frame[0] for frame in frames])).square().sum())
    assert error["previous"] > 3 * error["mean"]


def test_the_state_does_not_grow_with_the_stream() -> None:
    generator = torch.Generator().manual_seed(10)
    compressor = WardCompressor(12)
    sizes = set()
    for t in range(600):
        compressor.update(torch.randn(4, 8, generator=generator), t, t + 1)
        if t >= 10 and t % 100 == 0:
            sizes.add(len(pickle.dumps(compressor)))
    assert max(sizes) <= 1.01 * min(sizes)


def test_a_ratio_grows_its_state_no_more_than_it_must() -> None:
    generator = torch.Generator().manual_seed(11)
    compressor = WardCompressor("1/8", keep_assignment=True)
    frames = [torch.randn(16, 8, generator=generator) for _ in range(64)]
    for t, frame in enumerate(frames):
        compressor.update(frame, t, t + 1)
        assert len(compressor.result()) == 2 * (t + 1)
    assert len(compressor._table) <= 2 * (2 * 64 + 16) + 16


def test_large_values_with_large_weights_stay_finite() -> None:
    """A thousand tokens as far from a heavy one as can be, merged: their costs add up past the end of float32."""
    compressor = WardCompressor(3, gap_seconds=math.inf)
    spread = torch.rand(1024, 1, generator=torch.Generator().manual_seed(12))
    compressor.update((1e15 * (1 - 1e-3 * spread)).expand(-1, 8), 0, 1, weight=1e15)
    compressor.update((-1e15 * (1 - 1e-3 * spread)).expand(-1, 8), 1, 2, weight=1e9)
    live = compressor._table.order()
    assert np.isfinite(compressor._table.cost[np.ix_(live, live)]).all()
    assert torch.isfinite(compressor.result().tokens).all()
