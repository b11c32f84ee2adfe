"""k-means: as good as scikit-learn's, weighted, no empty cluster, the same with the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from csat_fusion import CompressionError
from csat_fusion.compressors import kmeans
from csat_fusion.compressors.kmeans import KMeansCompressor


def feed(compressor: KMeansCompressor, tokens: torch.Tensor, weights: torch.Tensor | None = None) -> KMeansCompressor:
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1, 1.0 if weights is None else float(weights[t]))
    return compressor


def cost(compressor: KMeansCompressor, tokens: torch.Tensor) -> float:
    kept = compressor.result().tokens[compressor.assignment()]
    return float((tokens.flatten(0, 1) - kept).square().sum())


def test_separate_clouds_are_found_whatever_their_size() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(8, 5, generator=generator)
    which = torch.randint(8, (60, 4), generator=generator).clamp_(max=7)
    which[:, 0] = 0
    which[0] = torch.arange(4, 8)
    tokens = centres[which] + 0.1 * torch.randn(60, 4, 5, generator=generator)
    for seed in range(5):
        assignment = feed(KMeansCompressor(8, seed=seed, keep_assignment=True), tokens).assignment()
        pairs = set(zip(which.flatten().tolist(), assignment.tolist(), strict=True))
        assert len(pairs) == 8


@pytest.mark.parametrize("count", [3, 12, 40])
def test_costs_no_more_than_scikit_learn(count: int) -> None:
    tokens = torch.randn(50, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs, ours = [], []
    for seed in range(5):
        found = KMeans(count, n_init=1, max_iter=25, random_state=seed).fit(tokens.flatten(0, 1).numpy())
        theirs.append(float(found.inertia_))
        ours.append(cost(feed(KMeansCompressor(count, seed=seed, keep_assignment=True), tokens), tokens))
    assert sum(ours) <= 1.02 * sum(theirs)


def test_with_weights_costs_no_more_than_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(200, 1, 2, generator=generator, dtype=torch.float64)
    weights = 10 ** (4 * torch.rand(200, generator=generator, dtype=torch.float64))
    theirs, ours = [], []
    for seed in range(5):
        found = KMeans(10, n_init=1, random_state=seed).fit(tokens[:, 0].numpy(), sample_weight=weights.numpy())
        theirs.append(float(found.inertia_))
        compressor = feed(KMeansCompressor(10, seed=seed, keep_assignment=True), tokens, weights)
        kept = compressor.result().tokens[compressor.assignment()]
        ours.append(float(weights @ (tokens[:, 0] - kept).square().sum(dim=1)))
    assert sum(ours) <= 1.02 * sum(theirs)


def test_an_empty_cluster_takes_the_costliest_token_that_can_be_spared() -> None:
    distance, weight = torch.tensor([1.0, 2.0, 9.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0])
    group = kmeans._filled(distance, torch.tensor([0, 0, 1, 0, 0]), weight.double(), 4)
    assert group.tolist() == [0, 0, 1, 2, 3]  # the third is alone, and stays


def test_every_token_is_with_its_nearest_mean_when_it_has_come_to_rest() -> None:
    tokens = torch.randn(30, 4, 3, generator=torch.Generator().manual_seed(2))
    weights = 10 ** (2 * torch.rand(30, generator=torch.Generator().manual_seed(3)))
    compressor = feed(KMeansCompressor(9, iterations=200, keep_assignment=True), tokens, weights)
    distance = torch.cdist(tokens.flatten(0, 1), compressor.result().tokens)
    assert torch.equal(distance.argmin(dim=1), compressor.assignment())


def test_a_weight_counts_as_that_many_tokens() -> None:
    """A frame seen a hundred times draws the mean to it."""
    tokens = torch.tensor([0.0, 1.0, 10.0]).view(3, 1, 1)
    got = feed(KMeansCompressor(2), tokens, torch.tensor([1.0, 99.0, 1.0])).result()
    assert sorted(got.tokens.flatten().tolist()) == pytest.approx([0.99, 10.0])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 30), kinds=st.integers(1, 4), count=st.integers(1, 29), seed=st.integers(0, 99))
def test_no_cluster_is_empty_though_tokens_are_equal(n: int, kinds: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(kinds, 3, generator=generator)[torch.randint(kinds, (n,), generator=generator)]
    compressor = feed(KMeansCompressor(count, seed=seed, keep_assignment=True), tokens[:, None])
    got = compressor.result()
    assert len(got) == min(n, count)
    if count >= kinds:  # then nothing need be lost
        torch.testing.assert_close(got.tokens[compressor.assignment()], tokens)


def test_the_same_seed_gives_the_same_and_the_global_one_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randn(40, 4, 6, generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    first, again, other = (feed(KMeansCompressor(12, seed=s, keep_assignment=True), tokens) for s in (5, 5, 6))
    assert torch.equal(first.assignment(), again.assignment())
    assert not torch.equal(first.assignment(), other.assignment())
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(kmeans, "_BLOCK_NUMBERS", 100)
    blocks = feed(KMeansCompressor(12, seed=5, keep_assignment=True), tokens)
    assert torch.equal(first.assignment(), blocks.assignment())


@pytest.mark.parametrize("scale", [1e-30, 1e15])
def test_scale_does_not_matter(scale: float) -> None:
    tokens = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(4))
    one, other = (feed(KMeansCompressor(7, keep_assignment=True), tokens * s).assignment() for s in (1.0, scale / 8))
    assert torch.equal(one, other)


def test_options_are_checked() -> None:
    for value in (0, 2.5, True):
        with pytest.raises(CompressionError, match=f"iterations .* got {value!r}"):
            KMeansCompressor(4, iterations=value)  # type: ignore[arg-type]
    for value in (-1, 2.5, 2**63):
        with pytest.raises(CompressionError, match=f"the seed .* got {value!r}"):
            KMeansCompressor(4, seed=value)  # type: ignore[arg-type]
