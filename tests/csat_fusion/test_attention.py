"""Attention over merged tokens: what log weight means, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.attention.weighted import weighted_attention
from csat_fusion.errors import CompressionError


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exact(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float | None = None) -> Tensor:
    """Softmax attention, written out."""
    out = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        factor = scale if scale is not None else q.shape[-1] ** -0.5
        out.append(torch.softmax(q @ k.transpose(-1, -2) * factor, dim=-1) @ v)
    return torch.cat(out, dim=-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    heads=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([None, 0.3]),
)
def test_a_token_of_weight_w_is_w_equal_tokens(seed: int, counts: list[int], heads: int, scale: float | None) -> None:
    m = len(counts)
    query, key, value = random(2, 5, 8, seed=seed), random(2, m, 8, seed=seed + 1), random(2, m, 12, seed=seed + 2)
    repeats = torch.tensor(counts)
    got = weighted_attention(query, key, value, repeats.double().expand(2, m), heads=heads, scale=scale)
    want = exact(query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), heads, scale)
    torch.testing.assert_close(got, want)


def test_weights_of_zero_are_masked() -> None:
    query, key, value = random(3, 4), random(6, 4, seed=1), random(6, 4, seed=2)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 3.0])
    some = weight > 0
    got = weighted_attention(query, key, value, weight)
    torch.testing.assert_close(got, weighted_attention(query, key[some], value[some], weight[some]))


def test_leading_dimensions_broadcast() -> None:
    query, key, value, weight = random(7, 1, 2, 8), random(3, 5, 8), random(3, 5, 8, seed=1), torch.ones(5)
    got = weighted_attention(query, key, value, weight, heads=2)
    assert got.shape == (7, 3, 2, 8)
    torch.testing.assert_close(got[4, 2], exact(query[4, 0], key[2], value[2], 2))
    assert weighted_attention(random(0, 8), key[0], value[0], weight).shape == (0, 8)


def test_gradients_pass_to_everything_also_beside_a_masked_token() -> None:
    query, key, value = random(3, 4).requires_grad_(), random(5, 4).requires_grad_(), random(5, 4).requires_grad_()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: weighted_attention(*a, heads=2), (query, key, value, weight))
    masked = torch.tensor([1.0, 0.0, 0.5, 3.0, 1.0], dtype=torch.float64, requires_grad=True)
    weighted_attention(query, key, value, masked).sum().backward()
    assert masked.grad is not None
    assert torch.isfinite(masked.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    query, key, value = (random(40, 32, seed=s) for s in range(3))
    weight = random(40, seed=3).abs() * 30 + 0.1
    want = weighted_attention(query, key, value, weight)
    got = weighted_attention(query.to(dtype), key.to(dtype), value.to(dtype), weight.float())
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(2, 5)}, "equally wide"),
        ({"value": torch.zeros(4, 4)}, "same number of tokens"),
        ({"weight": torch.ones(4)}, "same number of tokens"),
        ({"key": torch.zeros(0, 4), "value": torch.zeros(0, 4), "weight": torch.zeros(0)}, "at least one token"),
        ({"weight": torch.tensor([1.0, -2.0, 1.0])}, r"at least 0, got -2\.0"),
        ({"weight": torch.tensor([1.0, float("nan"), 1.0])}, "got nan"),
        ({"weight": torch.zeros(3)}, "all weights of a row are 0"),
        ({"heads": 3}, "3 heads must divide"),
        ({"heads": 0}, "heads must be a whole number, at least 1, got 0"),
        ({"scale": float("inf")}, "scale must be finite, got inf"),
        ({"query": torch.zeros(2, 4, dtype=torch.float64)}, "one floating-point type"),
        ({"query": torch.zeros(2, 1, 4), "key": torch.zeros(3, 3, 4)}, "must broadcast"),
        ({"query": torch.zeros(4)}, r"attention needs query"),
        ({"weight": torch.ones(3, device="meta")}, "on one device"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "query": torch.zeros(2, 4),
        "key": torch.zeros(3, 4),
        "value": torch.zeros(3, 4),
        "weight": torch.ones(3),
    }
    weighted_attention(**good)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=message):
        weighted_attention(**{**good, **change})  # type: ignore[arg-type]
