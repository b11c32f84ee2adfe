"""VisionZip: the important stay as they are, the others merge into evenly chosen ones of their own frames."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from csat_fusion import CompressionError
from csat_fusion.compressors import visionzip
from csat_fusion.compressors.visionzip import VisionZipCompressor, attention_received


def feed(budget: int, tokens: torch.Tensor, **options: Any) -> VisionZipCompressor:
    compressor = VisionZipCompressor(budget, keep_assignment=True, **options)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    return compressor


TOKENS = torch.randn(4, 30, 6, generator=torch.Generator().manual_seed(0))


def singles(compressor: VisionZipCompressor, shape: tuple[int, int]) -> list[list[int]]:
    """The patches of each frame that stand for themselves alone."""
    assignment = compressor.assignment()
    alone = torch.bincount(assignment)[assignment].view(shape) == 1
    return [row.nonzero()[:, 0].tolist() for row in alone]


def test_the_most_important_stay_as_they_are_and_the_rest_merges_within_its_frame() -> None:
    importance = torch.rand(4, 30, generator=torch.Generator().manual_seed(1))
    compressor = feed(40, TOKENS, importance=importance)  # ten a frame: eight dominant, two contextual
    assert singles(compressor, (4, 30)) == [sorted(row.topk(8).indices.tolist()) for row in importance]
    got, assignment = compressor.result(), compressor.assignment().view(4, 30)
    assert sorted(torch.bincount(assignment.flatten()).tolist())[:32] == [1] * 32
    for t in range(4):
        assert len(set(assignment[t].tolist())) == 10
        dominant = importance[t].topk(8).indices
        assert torch.equal(got.tokens[assignment[t, dominant]], TOKENS[t, dominant])
        rest = sorted(set(range(30)) - set(dominant.tolist()))
        chosen = [rest[0], rest[11]]  # 22 are left, two of them evenly
        cosine = torch.cosine_similarity(TOKENS[t, rest, None], TOKENS[t, None, chosen], dim=2)
        assert torch.equal(assignment[t, rest], assignment[t, chosen][cosine.argmax(dim=1)])


def test_importance_by_name_by_function_and_by_tensor() -> None:
    names = {"norm": TOKENS.norm(dim=2), "attention": attention_received(TOKENS)}
    for name, expected in names.items():
        by_name = feed(40, TOKENS, importance=name).assignment()
        assert torch.equal(by_name, feed(40, TOKENS, importance=expected).assignment())
        assert not torch.equal(by_name, feed(40, TOKENS, importance=-expected).assignment())
    by_function = feed(40, TOKENS, importance=lambda tokens: tokens.norm(dim=2)).assignment()
    assert torch.equal(by_function, feed(40, TOKENS).assignment())


def test_attention_received_is_that_of_a_softmax_over_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = TOKENS[:2, :5] * 3
    scaled = tokens / tokens.square().mean(dim=(1, 2), keepdim=True).sqrt()
    expected = torch.zeros(2, 5)
    for t in range(2):
        for i in range(5):
            others = [j for j in range(5) if j != i]
            logits = torch.stack([scaled[t, i] @ scaled[t, j] for j in others]) / math.sqrt(6)
            expected[t, others] += logits.softmax(dim=0) / 5
    torch.testing.assert_close(attention_received(tokens), expected)
    torch.testing.assert_close(attention_received(tokens * 1e-25), expected)
    monkeypatch.setattr(visionzip, "_BLOCK_NUMBERS", 30)
    torch.testing.assert_close(attention_received(tokens), expected)
    assert attention_received(torch.zeros(3, 1, 4)).tolist() == [[1], [1], [1]]
    torch.testing.assert_close(attention_received(torch.zeros(3, 2, 4)), torch.full((3, 2), 0.5))


def test_a_small_budget_takes_frames_together() -> None:
    for budget, parts in ((24, 4), (23, 3), (12, 2), (11, 1), (1, 1)):
        compressor = feed(budget, TOKENS)
        assignment = compressor.assignment().view(4, 30)
        assert len(compressor.result()) == budget
        sets = [set(row.tolist()) for row in assignment]
        joined = sum(bool(a & b) for a, b in pairwise(sets))
        assert joined == 4 - parts


def test_contextual_share() -> None:
    tokens = torch.randn(2, 200, 6, generator=torch.Generator().manual_seed(0))
    for contextual, dominant in ((0.5, 10), (1.0, 0), (1e-9, 19)):
        assert [len(row) for row in singles(feed(40, tokens, contextual=contextual), (2, 200))] == [dominant] * 2
    for value in (0, 1.5, math.nan, True):
        with pytest.raises(CompressionError, match=f"contextual must be above 0 and at most 1, got {value!r}"):
            VisionZipCompressor(4, contextual=value)


def test_bad_importance_is_named() -> None:
    with pytest.raises(
        CompressionError, match=r"no importance 'norms' \(did you mean 'norm'\?\); there are norm, atten"
    ):
        VisionZipCompressor(4, importance="norms")
    with pytest.raises(CompressionError, match="a function or a tensor, got int"):
        VisionZipCompressor(4, importance=3)  # type: ignore[arg-type]
    for importance, message in (
        (torch.ones(3, 30), r"\[4, 30\], one a token, got torch\.float32 \[3, 30\]"),
        (lambda tokens: tokens, r"one a token, got torch\.float32 \[4, 30, 6\]"),
        (lambda tokens: 1.0, "one a token, got float"),
        (torch.full((4, 30), math.nan), "must be finite, got nan"),
    ):
        with pytest.raises(CompressionError, match=message):
            feed(7, TOKENS, importance=importance).result()


def test_zero_and_equal_tokens() -> None:
    for value in (0.0, 0.1):
        for importance in ("norm", "attention"):
            got = feed(5, torch.full((9, 2, 4), value), importance=importance).result()
            torch.testing.assert_close(got.tokens, torch.full((5, 4), value))
