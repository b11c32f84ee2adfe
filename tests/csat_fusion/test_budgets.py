"""Budgets by number, by ratio and by fidelity, and what a window's groups are made into."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.compressors.budget import Cosine, Ratio, parse_budget
from csat_fusion.compressors.frames import IdentityCompressor, UniformCompressor
from csat_fusion.compressors.offline import OfflineCompressor, Window, group_means, smallest_cosine, token_set
from csat_fusion.compressors.runs import RunCompressor
from csat_fusion.errors import CompressionError


class BlockCompressor(OfflineCompressor):
    """Neighbours in the order given go together: enough to test what all offline compressors share."""

    exact_budget = True
    first_only = False

    def _clear(self) -> None:
        super()._clear()
        self.asked: list[int] = []

    def _group(self, window: Window, limit: int) -> Tensor:
        self.asked.append(limit)
        n = len(window.tokens)
        return torch.arange(n) * limit // n * 3  # numbers with holes between them

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        if not self.first_only:
            return None
        return window.tokens[[int((group == k).nonzero()[0]) for k in range(int(group.max()) + 1)]]


def make_window(tokens: Tensor, **changes: Tensor) -> Window:
    n = len(tokens)
    parts: dict[str, Tensor] = {
        "weight": torch.ones(n, dtype=torch.float64),
        "start_seconds": torch.arange(n).double(),
        "end_seconds": torch.arange(n).double() + 1,
        "frame": torch.arange(n),
        "patch": torch.zeros(n, dtype=torch.int64),
        **changes,
    }
    return Window(tokens=tokens, shape=(n, 1), **parts)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("64", 64),
        (" 7 ", 7),
        ("1/16", Ratio(1 / 16)),
        ("3 / 4", Ratio(0.75)),
        ("6.25%", Ratio(0.0625)),
        ("100 %", Ratio(1.0)),
        ("cosine 0.95", Cosine(0.95)),
        ("Cosine >= .9", Cosine(0.9)),
        ("cosine=1", Cosine(1.0)),
    ],
)
def test_a_budget_may_be_written(text: str, budget: object) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("given", [12, None, Ratio(0.5), Cosine(0.5)])
def test_a_budget_stays_what_it_is(given: Any) -> None:
    assert parse_budget(given) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "at least 1, got ''"),
        ("-3", "at least 1, got '-3'"),
        ("0", "at least 1, got 0"),
        ("1/0", "above 0 and at most 1, got '1/0'"),
        ("3/2", r"above 0 and at most 1, got 1\.5"),
        ("0/5", r"above 0 and at most 1, got 0\.0"),
        ("120%", r"above 0 and at most 1, got 1\.2"),
        ("cosine 0", r"the cosine of a budget must be above 0 and at most 1, got 0\.0"),
        ("cosine 1.5", r"got 1\.5"),
        ("sine 0.5", "got 'sine 0.5'"),
        (0, "at least 1, got 0"),
        (2.5, r"at least 1, got 2\.5"),
        (True, "at least 1, got True"),
        ([4], r"at least 1, got \[4\]"),
    ],
)
def test_a_bad_budget_is_named(given: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        parse_budget(given)


@pytest.mark.parametrize("value", [0, -0.1, 1.01, math.nan, math.inf, True, "a"])
def test_bad_shares_and_cosines_are_named(value: Any) -> None:
    for kind, name in ((Ratio, "ratio"), (Cosine, "cosine")):
        with pytest.raises(CompressionError, match=f"the {name} of a budget must be above 0 and at most 1, got"):
            kind(value)


@given(seen=st.integers(1, 10**7), parts=st.integers(1, 4096))
def test_a_ratio_is_rounded_up_but_not_by_the_last_bit(seen: int, parts: int) -> None:
    limit = Ratio(1 / parts).limit(seen)
    assert limit == max(1, -(-seen // parts))
    assert Ratio(1.0).limit(seen) == seen


def feed(compressor: Any, frames: list[Tensor]) -> Any:
    for t, frame in enumerate(frames):
        compressor.update(frame, t, t + 1)
    return compressor


def test_bisection_finds_the_smallest_budget_where_fidelity_rises_with_it() -> None:
    """On a turning vector each block of neighbours spans an angle: the smallest number of blocks is known."""
    angle = torch.linspace(0, math.pi / 2, 61, dtype=torch.float64)
    frames = [torch.stack([a.cos(), a.sin()])[None] for a in angle]
    compressor = feed(BlockCompressor(Cosine(0.99), keep_assignment=True), frames)
    got = compressor.result()
    fits = []
    for m in range(1, 62):
        group = torch.unique(torch.arange(61) * m // 61, return_inverse=True)[1]
        fits.append(smallest_cosine(make_window(torch.cat(frames)), group) >= 0.99)
    assert len(got) == fits.index(True) + 1
    assert not all(fits)
    assert len(compressor.asked) <= 7


def test_a_fidelity_of_one_merges_only_what_is_equal() -> None:
    frames = [torch.full((1, 4), 0.1 + t // 4) * torch.tensor([1.0, -1.0, 2.0, t // 4 + 1.0]) for t in range(8)]
    assert len(feed(BlockCompressor("cosine 1"), frames).result()) == 2


def test_read_twice_it_is_computed_once_and_again_after_a_frame() -> None:
    compressor = feed(BlockCompressor(3, keep_assignment=True), [torch.randn(4, 2) for _ in range(5)])
    first = compressor.result()
    first.tokens.zero_()
    first.weight.zero_()
    compressor.assignment().zero_()
    again = compressor.result()
    assert compressor.asked == [3]
    assert float(again.tokens.abs().sum()) > 0
    assert again.total_weight == 20
    assert compressor.assignment().max() == 2
    compressor.update(torch.randn(4, 2), 5, 6)
    assert compressor.result().total_weight == 24
    assert compressor.asked == [3, 3]


def test_results_read_in_inference_mode_are_ordinary_tensors_afterwards() -> None:
    compressor = feed(BlockCompressor(3), [torch.randn(4, 2) for _ in range(5)])
    with torch.inference_mode():
        compressor.result()
    later = compressor.result()
    later.tokens.mul_(2)
    assert not later.tokens.is_inference()


def test_values_replace_the_means() -> None:
    compressor = BlockCompressor(2, keep_assignment=True)
    compressor.first_only = True
    feed(compressor, [torch.tensor([[float(t)]]) for t in range(6)])
    assert compressor.result().tokens[:, 0].tolist() == [0.0, 3.0]
    compressor.first_only = False
    compressor.update(torch.tensor([[6.0]]), 6, 7)
    assert compressor.result().tokens[:, 0].tolist() == [1.5, 5.0]


def test_a_token_set_is_in_order_of_time_and_united() -> None:
    window = make_window(
        torch.tensor([[1.0], [2.0], [3.0], [5.0]]),
        weight=torch.tensor([1.0, 3.0, 1.0, 2.0], dtype=torch.float64),
        start_seconds=torch.tensor([4.0, 0.0, 6.0, 0.0], dtype=torch.float64),
        end_seconds=torch.tensor([5.0, 9.0, 7.0, 1.0], dtype=torch.float64),
        patch=torch.tensor([2, 0, 2, 1]),
    )
    kept, assigned = token_set(window, torch.tensor([0, 1, 0, 2]), None, torch.float16)
    assert kept.tokens.dtype == torch.float16
    assert kept.tokens[:, 0].tolist() == [5.0, 2.0, 2.0]
    assert kept.weight.tolist() == [2.0, 3.0, 2.0]
    assert kept.start_seconds.tolist() == [0.0, 0.0, 4.0]
    assert kept.end_seconds.tolist() == [1.0, 9.0, 7.0]
    assert kept.patch.tolist() == [1, 0, 2]
    assert assigned.tolist() == [2, 1, 2, 0]
    mixed, _ = token_set(window, torch.tensor([0, 0, 1, 1]), None, torch.float32)
    assert mixed.patch.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (torch.tensor([0, -1, 0]), None, "every token needs a group, or its weight is lost; got -1"),
        (torch.tensor([0, 2, 0]), None, "group 1 of 3 has no token"),
        (torch.tensor([0, 1]), None, r"groups must be int64 \[3\], got torch\.int64 \[2\]"),
        (torch.tensor([0.0, 1.0, 1.0]), None, r"got torch\.float32 \[3\]"),
        (torch.tensor([0, 1, 1]), torch.zeros(3, 2), r"there are 2 groups of width 2, got values \[3, 2\]"),
    ],
)
def test_groups_that_lose_a_token_are_refused(group: Tensor, values: Tensor | None, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        token_set(make_window(torch.zeros(3, 2)), group, values, torch.float32)


def test_means_of_long_groups_keep_their_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csat_fusion.compressors.offline._BLOCK_NUMBERS", 50_000)  # several blocks of columns
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(30_000, 5, generator=generator) + 1000
    weight = torch.rand(30_000, generator=generator, dtype=torch.float64) + 0.5
    group = torch.randint(0, 3, (30_000,), generator=generator)
    means = group_means(make_window(tokens, weight=weight), group)
    for k in range(3):
        mine = (group == k).numpy()
        want = np.average(tokens.double().numpy()[mine], axis=0, weights=weight.numpy()[mine])
        np.testing.assert_allclose(means[k].double(), want, rtol=1e-7)


def test_the_cosine_of_zero_and_of_tiny_tokens_is_exact() -> None:
    zero, unit = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    group = torch.tensor([0, 0])
    assert smallest_cosine(make_window(torch.cat([zero, zero])), group) == 1.0
    assert smallest_cosine(make_window(torch.cat([zero, unit])), group) == 0.0
    tiny = torch.tensor([[1e-30, 0.0], [1e-30, 1e-30]])
    assert smallest_cosine(make_window(tiny), group) == pytest.approx(math.cos(math.atan(0.5)), abs=1e-6)


def test_identity_keeps_to_ratios_and_fidelities_only_where_it_can() -> None:
    for budget in ("cosine 0.5", Ratio(1.0), None):
        assert len(feed(IdentityCompressor(budget), [torch.ones(2, 3)] * 3).result()) == 6
    with pytest.raises(CompressionError, match=r"there are 2, the budget is Ratio\(share=0\.5\)"):
        IdentityCompressor("1/2").update(torch.ones(2, 3), 0, 1)


def test_uniform_grows_from_patches_to_frames_under_a_ratio() -> None:
    compressor = UniformCompressor("1/4", keep_assignment=True)
    for t in range(32):
        compressor.update(torch.arange(8.0)[:, None] + 100 * t, t, t + 1)
        got = compressor.result()
        frames = max(1, 2 * (t + 1) // 8)
        assert len(got) == (2 * (t + 1) if t < 3 else 8 * frames)
        assert got.total_weight == 8 * (t + 1)
    assert (got.patch >= 0).all()


def test_runs_under_a_ratio_keep_at_least_a_frame() -> None:
    compressor = RunCompressor("1/4")
    for t in range(16):
        compressor.update(torch.randn(4, 3), t, t + 1)
        assert len(compressor.result()) == 4 * max(1, (t + 1) // 4)
