"""Facility location: the lazy choice is the greedy one, and what is kept covers best."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion import CompressionError
from csat_fusion.compressors import floc
from csat_fusion.compressors.floc import FlocCompressor, facility_location
from csat_fusion.compressors.similarity import directions


def rows(n: int, seed: int, width: int = 4) -> torch.Tensor:
    return directions(torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def covered(unit: torch.Tensor, weight: torch.Tensor, chosen: list[int]) -> float:
    """What greedy choice maximises, with -1 where nothing is chosen."""
    if not chosen:
        return -float(weight.sum())
    return float(weight @ (unit @ unit[chosen].T).max(dim=1).values)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), count=st.integers(1, 30), seed=st.integers(0, 999), kept=st.booleans())
def test_lazy_choice_adds_as_much_as_looking_at_all_every_time(n: int, count: int, seed: int, kept: bool) -> None:
    unit, weight = rows(n, seed), torch.arange(1, n + 1, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floc, "_CANDIDATES", 3)
        if not kept:
            patch.setattr(floc, "_KEPT_BYTES", 0)
        chosen = facility_location(unit, weight, min(n, count)).tolist()
    assert len(set(chosen)) == min(n, count)
    for k in range(len(chosen)):
        value = covered(unit, weight, chosen[: k + 1])
        best = max(covered(unit, weight, [*chosen[:k], j]) for j in range(n) if j not in chosen[:k])
        assert value == pytest.approx(best, rel=1e-9)


def test_greedy_is_within_its_bound_of_the_best() -> None:
    for seed in range(5):
        unit, weight = rows(12, seed), torch.ones(12, dtype=torch.float64)
        best = max(covered(unit, weight, list(chosen)) for chosen in combinations(range(12), 3))
        nothing = covered(unit, weight, [])
        got = covered(unit, weight, facility_location(unit, weight, 3).tolist())
        assert got - nothing >= (1 - 1 / 2.718281828) * (best - nothing)


def feed(compressor: FlocCompressor, tokens: torch.Tensor) -> FlocCompressor:
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    return compressor


def test_each_token_goes_to_the_most_similar_kept_one() -> None:
    tokens = torch.randn(10, 3, 4, generator=torch.Generator().manual_seed(0))
    compressor = feed(FlocCompressor(7, means=False, keep_assignment=True), tokens)
    got, flat = compressor.result(), tokens.flatten(0, 1)
    origin = flat.mean(dim=0)
    cosine = directions(flat, origin) @ directions(got.tokens, origin).T
    assert torch.equal(cosine.argmax(dim=1), compressor.assignment())
    means = feed(FlocCompressor(7, keep_assignment=True), tokens)
    assert torch.equal(means.result().weight, got.weight)
    assert not torch.allclose(means.result().tokens, got.tokens)


def test_centred_similarities_do_not_see_what_all_tokens_share() -> None:
    tokens = torch.randn(20, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = [
        feed(FlocCompressor(12, centred=centred, keep_assignment=True), tokens + shared).assignment()
        for centred in (True, False)
        for shared in (0.0, 5.0)
    ]
    assert torch.equal(groups[0], groups[1])
    assert not torch.equal(groups[2], groups[3])


def test_windows_keep_groups_apart_and_the_budget_exact() -> None:
    tokens = torch.randn(11, 3, 4, generator=torch.Generator().manual_seed(0))
    compressor = feed(FlocCompressor(8, window_frames=4, keep_assignment=True), tokens)
    group = compressor.assignment().view(11, 3)
    assert len(compressor.result()) == 8
    windows = [set(part.flatten().tolist()) for part in torch.split(group, [3, 4, 4])]
    assert sorted(map(len, windows)) == [2, 3, 3]
    assert len(set.union(*windows)) == 8  # none in two windows
    assert len(feed(FlocCompressor(2, window_frames=1), tokens).result()) == 2  # fewer tokens than windows


def test_where_nothing_is_left_to_cover_the_rest_is_spread_evenly() -> None:
    tokens = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)).repeat(12, 1, 1)
    got = feed(FlocCompressor(9, means=False, keep_assignment=True), tokens).result()
    assert len(got) == 9
    assert float(got.start_seconds.max()) >= 6
    assert len(feed(FlocCompressor(5), torch.zeros(4, 2, 3)).result()) == 5
    same = feed(FlocCompressor(5), torch.full((4, 2, 3), 0.1)).result()
    torch.testing.assert_close(same.tokens, torch.full((5, 3), 0.1))


def test_options_are_checked() -> None:
    for value in (0, 2.5, True):
        with pytest.raises(CompressionError, match=f"window_frames .* got {value!r}"):
            FlocCompressor(4, window_frames=value)  # type: ignore[arg-type]
