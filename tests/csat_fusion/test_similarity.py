"""Directions, nearest rows, means of groups and shares of a budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csat_fusion.compressors import similarity
from csat_fusion.compressors.similarity import directions, even_parts, even_share, group_rows, nearest


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_directions_have_length_one_whatever_the_scale(scale: float) -> None:
    tokens = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    unit = directions(scale * tokens)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(unit, directions(tokens))


def test_what_has_no_direction_stays_zero() -> None:
    tokens = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert directions(tokens).tolist() == [[0.0, 0.0], pytest.approx([0.6, 0.8])]
    same = torch.full((5, 3), 0.1)
    assert directions(same, same.sum(dim=0) / 5).abs().max() == 0  # rounding is no direction


def test_nearest_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, others = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).tensor_split([33])
    whole = nearest(rows, others)
    assert whole[1].tolist() == (rows @ others.T).argmax(dim=1).tolist()
    monkeypatch.setattr(similarity, "_BLOCK_NUMBERS", 20)
    torch.testing.assert_close(nearest(rows, others), whole)


def test_group_rows_are_weighted_means() -> None:
    rows = torch.tensor([[1.0, 0.0], [4.0, 4.0], [4.0, 3.0]])
    mean, weight = group_rows(rows, torch.tensor([2.0, 5.0, 1.0], dtype=torch.float64), torch.tensor([1, 0, 1]))
    assert mean.tolist() == [[4.0, 4.0], [2.0, 1.0]]
    assert weight.tolist() == [5.0, 3.0]


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20), share=st.floats(0, 1))
def test_even_share_sums_and_is_in_proportion(sizes: list[int], share: float) -> None:
    total = int(share * sum(sizes))
    shares = even_share(total, sizes)
    assert sum(shares) == total
    for got, size in zip(shares, sizes, strict=True):
        assert got <= size
        assert abs(got - total * size / sum(sizes)) < 1


@given(total=st.integers(0, 200), parts=st.integers(1, 30))
def test_even_parts_differ_by_at_most_one(total: int, parts: int) -> None:
    got = even_parts(total, parts)
    assert (len(got), sum(got)) == (parts, total)
    assert max(got) - min(got) <= 1
