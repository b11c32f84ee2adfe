"""A budget shared by several windows: spent where the video changes, and never past the total."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.compressors.sharing import share_budget
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet


def make_window(
    frames: int, patches: int, change: float, seed: int, width: int = 6, dtype: torch.dtype = torch.float64
) -> TokenSet:
    """All tokens of a window whose patches move by ``change`` each frame."""
    generator = torch.Generator().manual_seed(seed)
    base, rows = torch.randn(patches, width, generator=generator, dtype=torch.float64), []
    for _ in range(frames):
        base = base + change * torch.randn(patches, width, generator=generator, dtype=torch.float64)
        rows.append(base + 0.05 * torch.randn(patches, width, generator=generator, dtype=torch.float64))
    start = torch.arange(frames).double().repeat_interleave(patches) / 2
    return TokenSet(
        torch.cat(rows).to(dtype),
        torch.ones(frames * patches),
        start,
        start + 0.5,
        torch.arange(patches).repeat(frames),
    )


def squared_error(window: TokenSet, shared: tuple[TokenSet, Tensor]) -> float:
    kept, assigned = shared
    return float(((window.tokens - kept.tokens[assigned]).square().sum(dim=1) * window.weight).sum())


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5), st.floats(0, 1)), min_size=1, max_size=5),
    total=st.integers(1, 120),
    gap_seconds=st.sampled_from([0.0, 1.0, math.inf]),
    seed=st.integers(0, 999),
)
def test_the_total_is_exact_and_each_window_keeps_its_own(
    shapes: list[tuple[int, int, float]], total: int, gap_seconds: float, seed: int
) -> None:
    windows = [make_window(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    total = max(total, len(windows))
    shared = share_budget(windows, total, gap_seconds=gap_seconds)
    assert sum(len(kept) for kept, _ in shared) == min(total, sum(map(len, windows)))
    for window, (kept, assigned) in zip(windows, shared, strict=True):
        assert len(kept) >= 1
        assert kept.total_weight == pytest.approx(window.total_weight)
        assert kept.span == window.span
        for k in range(len(kept)):
            mine = assigned == k
            torch.testing.assert_close(kept.tokens[k], window.tokens[mine].mean(dim=0))
            assert kept.start_seconds[k] == window.start_seconds[mine].min()
            assert kept.end_seconds[k] == window.end_seconds[mine].max()


def test_a_static_window_gives_its_tokens_to_a_changing_one() -> None:
    windows = [make_window(16, 4, 0.0, seed=0), make_window(16, 4, 0.5, seed=1)]
    counts = [len(kept) for kept, _ in share_budget(windows, 32)]
    assert sum(counts) == 32
    assert counts[0] <= 6


def test_change_is_measured_alike_in_all_windows() -> None:
    """The same video at a tenth of the contrast has a hundredth of the error to lose."""
    window = make_window(12, 4, 0.3, seed=7)
    faint = TokenSet(window.tokens / 10, window.weight, window.start_seconds, window.end_seconds, window.patch)
    counts = [len(kept) for kept, _ in share_budget([window, faint], 40)]
    assert counts[0] > 3 * counts[1]


def test_equal_windows_get_equal_shares() -> None:
    window = make_window(12, 4, 0.3, seed=2)
    counts = [len(kept) for kept, _ in share_budget([window] * 3, 32)]
    assert sum(counts) == 32
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("gap_seconds", [1.0, math.inf])
@pytest.mark.parametrize("seed", range(6))
def test_the_squared_error_is_no_more_than_with_equal_shares(seed: int, gap_seconds: float) -> None:
    changes = [0.0, 0.02, 0.1, 0.5]
    windows = [make_window(12, 4, change, seed=10 * seed + i) for i, change in enumerate(changes)]
    for total in (16, 32, 96):
        shared = share_budget(windows, total, gap_seconds=gap_seconds)
        equal = [share_budget([window], total // 4, gap_seconds=gap_seconds)[0] for window in windows]
        spent, even = (sum(map(squared_error, windows, each)) for each in (shared, equal))
        assert spent <= even
        assert total == 16 or spent < 0.8 * even


def test_one_window_alone_is_merged_as_the_greedy_algorithm_merges_it() -> None:
    window = make_window(10, 4, 0.4, seed=3)
    previous = 0.0
    for total in range(40, 0, -1):
        error = squared_error(window, share_budget([window], total, gap_seconds=math.inf)[0])
        assert error >= previous - 1e-9
        previous = error


def test_time_apart_is_crossed_only_when_no_window_has_another_pair() -> None:
    """Two moments of the same picture an hour apart: they stay two while the other window has anything to merge."""
    picture = torch.zeros(2, 3)
    far = TokenSet(
        picture, torch.ones(2), *(torch.tensor([0.0, 3600.0]).double() + s for s in (0, 1)), torch.zeros(2).long()
    )
    near = make_window(4, 2, 1.0, seed=4, width=3, dtype=torch.float32)
    assert [len(kept) for kept, _ in share_budget([far, near], 3)] == [2, 1]
    assert [len(kept) for kept, _ in share_budget([far, near], 2)] == [1, 1]
    assert [len(kept) for kept, _ in share_budget([far, near], 9, gap_seconds=math.inf)] == [1, 8]


def test_windows_may_be_shared_again() -> None:
    windows = [make_window(12, 4, change, seed=i) for i, change in enumerate((0.0, 0.1, 0.5))]
    first = [kept for kept, _ in share_budget(windows[:2], 40)]
    again = share_budget([*first, windows[2]], 40)
    assert sum(len(kept) for kept, _ in again) == 40
    assert again[0][0].total_weight == windows[0].total_weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    shared = share_budget([make_window(6, 3, 0.2, seed=5, dtype=dtype)] * 2, 9)
    assert all(kept.dtype == dtype for kept, _ in shared)


def test_bad_input_is_named() -> None:
    window = make_window(2, 2, 0.1, seed=6)
    with pytest.raises(CompressionError, match="there is no window"):
        share_budget([], 4)
    for total in (1, 0, 2.0, True):
        with pytest.raises(CompressionError, match=f"at least 1 for each of 2 windows, got {total!r}"):
            share_budget([window] * 2, total)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=r"window 1 has width 6, torch\.float32 .* width 6, torch\.float64"):
        share_budget([window, window.to(dtype=torch.float32)], 4)
    with pytest.raises(CompressionError, match="gap_seconds must be at least 0, got nan"):
        share_budget([window], 4, gap_seconds=math.nan)
    broken = TokenSet(window.tokens * math.nan, window.weight, window.start_seconds, window.end_seconds, window.patch)
    with pytest.raises(CompressionError, match="window 1 holds a token that is not finite"):
        share_budget([window, broken], 4)
