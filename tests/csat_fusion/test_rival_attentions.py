"""The rivals of CSAT, each against the equations of its paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from csat_fusion.attention.base import make_attention
from csat_fusion.attention.exact import exact_attention
from csat_fusion.attention.linformer import LinformerCrossAttention, linformer_attention
from csat_fusion.attention.nystrom import NystromCrossAttention, iterative_pinv, nystrom_attention
from csat_fusion.attention.performer import PerformerCrossAttention, orthogonal_features, performer_attention
from csat_fusion.errors import CompressionError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1) @ value


# --- exact ---


def test_exact_attention_splits_heads_broadcasts_and_scales() -> None:
    query, key, value = random(7, 1, 3, 8), random(2, 5, 8, seed=1), random(2, 5, 12, seed=2)
    got = exact_attention(query, key, value, heads=4)
    assert got.shape == (7, 2, 3, 12)
    torch.testing.assert_close(got[3, 1, :, 6:9], attend(query[3, 0, :, 4:6], key[1, :, 4:6], value[1, :, 6:9]))
    flat = exact_attention(query, key, value, scale=0.0)
    torch.testing.assert_close(flat, value.mean(1, keepdim=True).expand(7, 2, 3, 12))
    ones = exact_attention(query, key, value, weights=torch.ones(5))
    torch.testing.assert_close(ones, exact_attention(query, key, value))


# --- Linformer ---


def test_linformer_is_attention_to_mixed_keys_and_values() -> None:
    query, key, value = random(2, 3, 8), random(2, 6, 8, seed=1), random(2, 6, 8, seed=2)
    e, f = random(4, 6, seed=3), random(4, 6, seed=4)
    torch.testing.assert_close(linformer_attention(query, key, value, e, f), attend(query, e @ key, f @ value))
    eye = torch.eye(6, dtype=torch.float64)
    got = linformer_attention(query, key, value, eye, eye, heads=2)
    torch.testing.assert_close(got, exact_attention(query, key, value, heads=2))
    mask = torch.tensor([1.0, 1, 0, 1, 0, 1])
    gone = key * mask[:, None], value * mask[:, None]
    masked = linformer_attention(query, key, value, e, f, weights=mask)
    torch.testing.assert_close(masked, linformer_attention(query, *gone, e, f))
    with pytest.raises(CompressionError, match=r"mix_keys must be \[m, 6\]"):
        linformer_attention(query, key, value, e[:, :5], f)


def test_the_map_of_linformer_goes_through_the_matrix_of_the_values() -> None:
    attention = LinformerCrossAttention(16, 2, budget=4, tokens=9).double()
    key = random(2, 9, 16)
    seen = attention(key[:, :3], key, key, need_weights="map")[1]
    torch.testing.assert_close(seen.tokens, seen.measurements @ attention.mix_values)  # type: ignore[union-attr]


def test_linformer_is_made_for_one_number_of_tokens() -> None:
    attention = LinformerCrossAttention(16, 2, budget=4, tokens=9)
    assert attention.state_numbers(9) == attention.state_numbers(10**6) == 2 * 4 * 8
    with pytest.raises(CompressionError, match="made for 9 tokens, got 8"):
        attention(torch.zeros(1, 2, 16), torch.zeros(1, 8, 16), torch.zeros(1, 8, 16))
    with pytest.raises(CompressionError, match="needs tokens, the number n"):
        make_attention("linformer", 16, 2, budget=4)
    assert LinformerCrossAttention(16, 2, budget="1/3", tokens=9).mix_keys.shape == (3, 9)


# --- Performer ---


def test_features_are_orthogonal_in_blocks_with_the_lengths_of_normal_vectors() -> None:
    omega = orthogonal_features(20, 8, seed=1).double()
    assert omega.shape == (20, 8)
    for block in omega.split(8):
        unit = block / block.norm(dim=1, keepdim=True)
        torch.testing.assert_close(unit @ unit.T, torch.eye(len(block)).double(), atol=1e-6, rtol=0)
    many = orthogonal_features(4000, 8, seed=2)
    assert float(many.square().sum(1).mean()) == pytest.approx(8, rel=0.05)
    assert torch.equal(orthogonal_features(20, 8, seed=1).double(), omega)
    assert not torch.equal(orthogonal_features(20, 8, seed=2).double(), omega)


def test_performer_comes_nearer_to_exact_attention_with_more_features() -> None:
    query, key, value = random(2, 30, 16) / 2, random(2, 40, 16, seed=1) / 2, random(2, 40, 16, seed=2)
    want = exact_attention(query, key, value, heads=2)
    errors = []
    for count in (8, 128, 4096):
        tries = [
            performer_attention(query, key, value, orthogonal_features(count, 8, seed=s).double(), heads=2)
            for s in range(5)
        ]
        errors.append(sum(float((got - want).square().mean()) for got in tries) / 5)
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_performer_kernel_estimate_is_unbiased() -> None:
    """Over many features, ``phi(q) phi(k)`` over its sum is the softmax: weights of one query agree to a hundredth."""
    query, key = random(1, 4) * 0.5, random(5, 4, seed=1)
    got = performer_attention(query, key, torch.eye(5).double(), orthogonal_features(60_000, 4).double())
    torch.testing.assert_close(got, attend(query, key, torch.eye(5).double()), atol=0.01, rtol=0)


def test_performer_weights_are_repetitions_and_large_tokens_stay_finite() -> None:
    query, key, value = random(2, 3, 8), random(2, 5, 8, seed=1), random(2, 5, 8, seed=2)
    omega = orthogonal_features(32, 8).double()
    counts = torch.tensor([1, 4, 2, 1, 3])
    got = performer_attention(query, key, value, omega, weights=counts.double())
    many = (t.repeat_interleave(counts, dim=1) for t in (key, value))
    torch.testing.assert_close(got, performer_attention(query, *many, omega))
    for size in (1e3, 1e6):
        big = performer_attention((query * size).float(), (key * size).float(), value.float(), omega.float())
        assert torch.isfinite(big).all()
        assert float(big.abs().max()) <= float(value.abs().max()) * 1.001


def test_performer_features_neither_underflow_nor_leave_a_query_without_tokens() -> None:
    key = torch.eye(8) * 15  # exp(-|k|^2 / 2) is 0 in float32
    seen = performer_attention(key[:1], key, torch.eye(8), orthogonal_features(64, 8), scale=1.0)
    assert float(seen.detach().max()) > 0.5  # not the mean of all tokens
    apart = torch.tensor([[20.0, 0.0], [0.0, 20.0]])  # features that one has and the other lacks
    got = performer_attention(apart[:1], apart[1:], torch.tensor([[3.0, 4.0]]), apart, scale=1.0)
    torch.testing.assert_close(got, torch.tensor([[3.0, 4.0]]))


def test_performer_budget_is_a_state_as_large_as_m_keys_and_values() -> None:
    made = PerformerCrossAttention(64, 2, budget=10)
    assert made.state_numbers(10**6) == 19 * 33 <= 2 * 10 * 32
    assert PerformerCrossAttention(64, 2, features=7).features.shape == (7, 32)
    assert PerformerCrossAttention(64, 2, budget="1/4", tokens=40).features.shape == (19, 32)
    for options in ({}, {"budget": 4, "features": 4}):
        with pytest.raises(CompressionError, match="a budget or features, not both"):
            PerformerCrossAttention(64, 2, **options)
    with pytest.raises(CompressionError, match=r"the ratio|a ratio of 0\.25 needs tokens"):
        PerformerCrossAttention(64, 2, budget="1/4")


# --- Nystrom ---


def test_the_iteration_finds_the_pseudo_inverse() -> None:
    square = torch.softmax(2 * random(3, 12, 12), dim=-1)
    torch.testing.assert_close(iterative_pinv(square, 30), torch.linalg.pinv(square), atol=1e-6, rtol=1e-6)
    for shape in ((4, 9), (9, 4)):
        wide = torch.softmax(random(*shape), dim=-1)
        torch.testing.assert_close(iterative_pinv(wide, 25), torch.linalg.pinv(wide), atol=1e-8, rtol=1e-8)
    assert torch.isfinite(iterative_pinv(torch.zeros(3, 3))).all()


def test_nystrom_is_three_softmaxes_through_means_of_segments() -> None:
    query, key, value = random(2, 12, 8), random(2, 20, 8, seed=1), random(2, 20, 8, seed=2)
    q_marks, k_marks = query.view(2, 4, 3, 8).mean(2), key.view(2, 4, 5, 8).mean(2)
    eye = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    first, middle = attend(query, k_marks, eye), attend(q_marks, k_marks, eye)
    want = first @ iterative_pinv(middle) @ attend(q_marks, key, value)
    torch.testing.assert_close(nystrom_attention(query, key, value, 4), want, atol=1e-4, rtol=1e-4)
    exact = first @ torch.linalg.pinv(middle) @ attend(q_marks, key, value)
    torch.testing.assert_close(nystrom_attention(query, key, value, 4, iterations=None), exact)


def test_nystrom_with_all_tokens_as_landmarks_is_exact_with_weights_too() -> None:
    query, key, value = random(2, 5, 8), random(2, 9, 8, seed=1), random(2, 9, 8, seed=2)
    weights = random(2, 9, seed=3).abs() + 0.1
    weights[:, 2] = 0
    for given in (None, weights):
        got = nystrom_attention(query, key, value, 9, iterations=None, weights=given, heads=2)
        torch.testing.assert_close(got, exact_attention(query, key, value, weights=given, heads=2))


def test_nystrom_with_no_more_queries_than_landmarks_is_exact_attention() -> None:
    for q in (1, 3, 4):
        query, key, value = random(2, q, 8), random(2, 30, 8, seed=1), random(2, 30, 8, seed=2)
        got = nystrom_attention(query, key, value, 4, iterations=None)
        torch.testing.assert_close(got, exact_attention(query, key, value))
    more = random(2, 5, 8)
    assert not torch.allclose(nystrom_attention(more, key, value, 4), exact_attention(more, key, value), atol=1e-3)


def test_a_landmark_of_masked_tokens_is_none() -> None:
    query, key, value = random(2, 3, 8), random(2, 20, 8, seed=1), random(2, 20, 8, seed=2)
    weights = (torch.arange(20) < 15).double()
    got = nystrom_attention(query, key, value, 4, weights=weights, iterations=None)
    fewer = nystrom_attention(query[:, :, :], key[:, :15], value[:, :15], 3, iterations=None)
    torch.testing.assert_close(got, fewer)
    four = random(2, 8, 8, seed=5)
    masked = nystrom_attention(four, key, value, 4, weights=weights)
    heavy = nystrom_attention(four, key, value, 4, weights=weights + 1e-12)
    torch.testing.assert_close(masked, heavy, atol=1e-6, rtol=1e-6)


def test_nystrom_takes_uneven_segments_and_tokens_in_any_number() -> None:
    attention = NystromCrossAttention(16, 2, budget="1/4")
    for q, n in ((1, 1), (1, 30), (7, 3), (5, 31)):
        query, key = random(2, q, 16).float(), random(2, n, 16, seed=1).float()
        out, seen = attention(query, key, key, need_weights=True)
        assert torch.isfinite(out).all()
        assert seen.shape == (2, q, n)
    assert attention.state_numbers(30) == 2 * 8 * 8
    with pytest.raises(CompressionError, match="iterations must be a whole number, at least 1, got 0"):
        NystromCrossAttention(16, 2, budget=4, iterations=0)


@pytest.mark.parametrize("name", ["linformer", "performer", "nystrom", "exact"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(2, 5)}, "equally wide"),
        ({"value": torch.zeros(4, 4)}, "same number of tokens"),
        ({"key": torch.zeros(0, 4), "value": torch.zeros(0, 4)}, "at least one token"),
        ({"weights": torch.tensor([1.0, -2.0, 1.0])}, r"at least 0, got -2\.0"),
        ({"weights": torch.zeros(3)}, "all weights of a row are 0"),
        ({"heads": 3}, "3 heads must divide"),
        ({"scale": float("inf")}, "scale must be finite, got inf"),
        ({"query": torch.zeros(2, 4, dtype=torch.float64)}, "one floating-point type"),
        ({"query": torch.zeros(4)}, "attention needs query"),
    ],
)
def test_bad_input_is_named(name: str, change: dict[str, Any], message: str) -> None:
    function, extra = {
        "linformer": (linformer_attention, (torch.zeros(2, 3), torch.zeros(2, 3))),
        "performer": (performer_attention, (torch.zeros(2, 4),)),
        "nystrom": (nystrom_attention, (2,)),
        "exact": (exact_attention, ()),
    }[name]
    good = {"query": torch.zeros(2, 4), "key": torch.zeros(3, 4), "value": torch.zeros(3, 4)}
    parts = {**good, **change}
    function(*good.values(), *extra)  # type: ignore[operator]
    with pytest.raises(CompressionError, match=message):
        function(parts.pop("query"), parts.pop("key"), parts.pop("value"), *extra, **parts)  # type: ignore[operator]
