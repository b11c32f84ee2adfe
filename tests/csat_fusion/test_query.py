"""Selection for a query: what is asked for stays apart, the rest is kept coarsely, times stay honest."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from csat_fusion import CompressionError
from csat_fusion.compressors.query import QueryCompressor


def feed(budget: int, tokens: torch.Tensor, query: torch.Tensor, step: float = 1.0, **options: Any) -> QueryCompressor:
    compressor = QueryCompressor(budget, query=query, keep_assignment=True, **options)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t * step, t * step + 1)
    return compressor


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Forty frames of noise about one direction; in frames 17 and 18 patch 2 shows what is asked for."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(16, generator=generator) + 0.5 * torch.randn(40, 6, 16, generator=generator)
    asked = torch.randn(16, generator=generator)
    tokens[17:19, 2] = 3 * asked + 0.3 * torch.randn(2, 16, generator=generator)
    return tokens, asked


def test_what_is_asked_for_stays_apart_at_its_time() -> None:
    for seed in range(5):
        tokens, asked = scene(seed)
        for query in (asked, 1e-20 * asked, torch.stack([-tokens.mean(dim=(0, 1)), asked])):
            compressor = feed(8, tokens, query)
            got = compressor.result()
            found = torch.cosine_similarity(got.tokens, asked[None]) > 0.9
            assert (got.start_seconds[found].min().item(), got.end_seconds[found].max().item()) == (17, 19)
            assert (got.patch[found] == 2).all()
            assert got.weight[found].sum() == 2


def test_another_query_keeps_something_else() -> None:
    tokens, asked = scene()
    other = feed(8, tokens, tokens[3, 4]).result().tokens
    assert float((other - tokens[3, 4]).norm(dim=1).min()) < 1.5
    assert float(torch.cosine_similarity(other, asked[None]).max()) < 0.9


def test_focus_and_context_share_the_budget() -> None:
    tokens, asked = scene()
    assignment = feed(8, tokens, asked, focus=0.5, gap_seconds=0.0).assignment()
    sizes = torch.bincount(assignment).sort().values
    rest = int(sizes[4:].sum())
    assert sizes[4:].tolist() == sorted(rest * (k + 1) // 4 - rest * k // 4 for k in range(4))
    frame = torch.arange(40).repeat_interleave(6)
    spans = sorted((int(frame[assignment == k].min()), int(frame[assignment == k].max())) for k in range(8))
    long = [span for span in spans if span[1] - span[0] > 4]
    assert len(long) == 4
    assert all(a[1] <= b[0] for a, b in pairwise(long))  # stretches of time, one after the other
    everything = feed(8, tokens, asked, focus=1.0)
    assert len(everything.result()) == 8


@pytest.mark.parametrize(
    ("gap", "joined"), [(0.0, [10]), (1.0, [10]), (2.0, [8, 10, 12]), (math.inf, [0, 2, 8, 10, 12])]
)
def test_tokens_join_a_chosen_one_only_within_the_gap(gap: float, joined: list[int]) -> None:
    """Half a second is unseen between frames; what is asked for shows in five of twenty, best in frame 10."""
    tokens = torch.eye(4)[0].repeat(20, 1, 1) + 0.01 * torch.arange(20.0)[:, None, None] * torch.eye(4)[2]
    for t in (0, 2, 8, 10, 12):
        tokens[t, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0 if t == 10 else 0.01])
    compressor = QueryCompressor(4, query=torch.eye(4)[1], gap_seconds=gap, focus=0.25, keep_assignment=True)
    for t in range(20):
        compressor.update(tokens[t], 1.5 * t, 1.5 * t + 1)
    assignment = compressor.assignment()
    assert (assignment == assignment[10]).nonzero()[:, 0].tolist() == joined


def test_context_tokens_are_there_even_where_all_would_join() -> None:
    """Tokens of two kinds, both chosen: every other one is nearer to its kind than to any mean of both."""
    tokens = torch.eye(4)[[0, 1] * 6][:, None]
    compressor = feed(4, tokens, torch.eye(4)[:2], focus=0.5, balance=0.4, gap_seconds=math.inf)
    got = compressor.result()
    assert len(got) == 4
    assert sorted(got.weight.tolist())[:2] == [1, 1]  # and all others joined


def test_balance_trades_relevance_for_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    near, far = torch.eye(8)[0] + 0.2 * torch.eye(8)[1], torch.eye(8)[0] - 0.7 * torch.eye(8)[2]
    noise = 0.01 * torch.randn(12, 1, 8, generator=generator)
    tokens = torch.stack([near] * 8 + [far] + [torch.eye(8)[5]] * 3)[:, None] + noise
    chosen = {}
    for balance in (1.0, 0.5):
        kept = feed(2, tokens, torch.eye(8)[0], focus=1.0, balance=balance).result().tokens
        chosen[balance] = float(torch.cosine_similarity(kept[0], kept[1], dim=0))
    assert chosen[1.0] > 0.9 > chosen[0.5]


def test_a_query_of_another_width_is_refused_before_anything_changes() -> None:
    compressor = QueryCompressor(4, query=torch.ones(2, 5))
    with pytest.raises(CompressionError, match="the query has width 5, the tokens 6"):
        compressor.update(torch.ones(3, 6), 0, 1)
    assert compressor.frames_seen == 0
    compressor.update(torch.ones(3, 5), 0, 1)
    assert len(compressor.result()) == 3


def test_the_query_is_copied() -> None:
    tokens, asked = scene()
    query = asked.clone()
    compressor = QueryCompressor(8, query=query, keep_assignment=True)
    query.zero_()
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    assert torch.equal(compressor.assignment(), feed(8, tokens, asked).assignment())


def test_zero_and_equal_tokens_keep_the_budget() -> None:
    for value in (0.0, 0.1):
        for budget in (1, 2, 5, 17):
            got = feed(budget, torch.full((9, 2, 4), value), torch.ones(4)).result()
            assert len(got) == budget
            torch.testing.assert_close(got.tokens, torch.full((budget, 4), value))


def test_options_are_checked() -> None:
    for query, message in (
        ([1.0], "got list"),
        (torch.ones(3, dtype=torch.int64), r"got torch\.int64 \[3\]"),
        (torch.ones(2, 2, 2), r"\[2, 2, 2\]"),
        (torch.ones(0), r"\[0\]"),
        (torch.tensor([1.0, math.nan]), "must be finite and not zero"),
        (torch.tensor([[1.0, 1.0], [0.0, 0.0]]), "must be finite and not zero"),
    ):
        with pytest.raises(CompressionError, match=message):
            QueryCompressor(4, query=query)  # type: ignore[arg-type]
    for name, value in (("focus", 1.5), ("focus", math.nan), ("balance", -0.1), ("balance", True)):
        with pytest.raises(CompressionError, match=f"{name} must be a number from 0 to 1, got {value!r}"):
            QueryCompressor(4, query=torch.ones(3), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match="focus must be above 0"):
        QueryCompressor(4, query=torch.ones(3), focus=0)
