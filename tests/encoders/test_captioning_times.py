"""Times as sinusoids: nothing for a still, bounded, relative to the segment, averages over spans."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import EncoderInputError
from encoders.openclip.times import AMPLITUDE, add_times, time_features

WIDTH = 64
seconds = st.floats(0, 600, allow_nan=False, width=32)
lengths = st.floats(0.0625, 64, allow_nan=False, width=32)


def features(start: float, end: float, span: tuple[float, float] = (0.0, 700.0), width: int = WIDTH) -> torch.Tensor:
    begin, finish, segment = (torch.tensor([row], dtype=torch.float64) for row in ([start], [end], span))
    return time_features(begin, finish, segment, width)[0, 0]


def test_a_still_picture_has_none() -> None:
    assert features(0, 1, (math.nan, math.nan)).count_nonzero() == 0
    tokens = torch.randn(1, 1, WIDTH)
    nan = torch.full((1, 2), math.nan).double()
    zero = torch.zeros(1, 1).double()
    assert torch.equal(add_times(tokens, zero, zero + 1, nan), tokens)


@settings(max_examples=60, deadline=None)
@given(start=seconds, length=lengths, cut=st.floats(0.05, 0.95))
def test_those_of_a_span_are_the_mean_of_those_of_its_pieces(start: float, length: float, cut: float) -> None:
    whole = features(start, start + length)
    middle = start + cut * length
    pieces = cut * features(start, middle) + (1 - cut) * features(middle, start + length)
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(start=seconds, length=lengths, later=st.floats(0, 1e7, width=32))
def test_only_the_time_within_the_segment_counts(start: float, length: float, later: float) -> None:
    here, there = (features(start + t, start + length + t, (t, 700.0 + t)) for t in (0.0, later))
    assert float(here.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)


def test_short_moments_are_told_apart_by_order_and_by_distance() -> None:
    """Half a second apart is told; so is early from late in a segment of any length."""
    for whole in (2.0, 30.0, 600.0):
        rows = torch.stack([features(t, t + 0.5, (0.0, whole)) for t in torch.arange(0, whole, whole / 4).tolist()])
        assert float(torch.cdist(rows, rows).fill_diagonal_(9).min()) > 0.5
    near, far = (float((features(4, 4.5) - features(4 + t, 4.5 + t)).norm()) for t in (0.5, 2.0))
    assert 0.05 < near < far


def test_they_are_as_large_as_documented_beside_the_token() -> None:
    tokens = torch.randn(1, 40, 256, generator=torch.Generator().manual_seed(0)) * 30
    start = torch.linspace(0, 20, 40).double()[None]
    added = add_times(tokens, start, start + 0.01, torch.tensor([[0.0, 21.0]]).double()) - tokens
    power = added.square().mean(-1) / tokens.square().mean(-1)
    torch.testing.assert_close(power, torch.full_like(power, AMPLITUDE**2 / 4), rtol=0.01, atol=0)
    assert added[..., 64:192].count_nonzero() == 0


def test_half_precision_tokens_stay_half() -> None:
    zero = torch.zeros(1, 1).double()
    timed = add_times(torch.ones(1, 1, 16).half(), zero, zero + 1, torch.tensor([[0.0, 2.0]]).double())
    assert timed.dtype == torch.float16


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(EncoderInputError, match="at least 8"):
        features(0, 1, width=7)
    zero = torch.zeros(2, 3)
    with pytest.raises(EncoderInputError, match=r"\[2, 3\]"):
        time_features(zero, zero, torch.zeros(3, 2), WIDTH)
