"""Token merging against a slow copy of the paper's algorithm, and what its order of tokens does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion import CompressionError, make_compressor
from csat_fusion.compressors.tome import TomeCompressor


def slow_rounds(tokens: list[torch.Tensor], limit: int, rounds: int, schedule: str) -> list[set[int]]:
    """The sets of members, by loops: the two sets, the best partner of each, the best pairs, means by size."""
    n = len(tokens)
    kept = [(token, {i}) for i, token in enumerate(tokens)]
    while len(kept) > limit:
        if schedule == "ratio":
            r = max(1, len(kept) - int((limit / n) ** (1 / rounds) * len(kept)))
        else:
            r = math.ceil((n - limit) / rounds)
        r = min(r, len(kept) - limit, len(kept) // 2)
        first, second = range(0, len(kept), 2), range(1, len(kept), 2)
        pairs = []
        for i in first:
            found = [(float(torch.cosine_similarity(kept[i][0], kept[j][0], dim=0)), j) for j in second]
            best = max(found, default=None)
            if best is not None:
                pairs.append((-best[0], i, best[1]))
        into: dict[int, list[int]] = {}
        for _, i, j in sorted(pairs)[:r]:
            into.setdefault(j, []).append(i)
        gone = {i for merged in into.values() for i in merged}
        after = []
        for j, (token, members) in enumerate(kept):
            if j in gone:
                continue
            parts = [(token, members)] + [kept[i] for i in into.get(j, [])]
            total = sum(len(m) for _, m in parts)
            mean = sum((t * len(m) for t, m in parts), torch.zeros_like(token)) / total
            after.append((mean, set().union(*(m for _, m in parts))))
        kept = after
    return [members for _, members in kept]


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(1, 9),
    patches=st.integers(1, 4),
    limit=st.integers(1, 12),
    rounds=st.integers(1, 5),
    schedule=st.sampled_from(["ratio", "constant"]),
    order=st.sampled_from(["patch", "frame"]),
    seed=st.integers(0, 999),
)
def test_groups_are_those_of_the_paper(
    frames: int, patches: int, limit: int, rounds: int, schedule: str, order: str, seed: int
) -> None:
    tokens = torch.randn(frames, patches, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    compressor = TomeCompressor(limit, order=order, rounds=rounds, schedule=schedule, keep_assignment=True)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    assignment = compressor.assignment()
    place = [(t, p) for t in range(frames) for p in range(patches)]
    if order == "patch":
        place.sort(key=lambda tp: (tp[1], tp[0]))
    expected = slow_rounds([tokens[t, p] for t, p in place], limit, rounds, schedule)
    got: dict[int, set[int]] = {}
    for i, (t, p) in enumerate(place):
        got.setdefault(int(assignment[t * patches + p]), set()).add(i)
    assert sorted(map(sorted, got.values())) == sorted(map(sorted, expected))


def test_only_patch_after_patch_can_a_patch_meet_itself_in_time() -> None:
    scene = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # two patches that have nothing in common and never change
    patch = {}
    for order in ("patch", "frame"):
        compressor = make_compressor("tome", 2, order=order)
        for t in range(8):
            compressor.update(scene, t, t + 1)
        got = compressor.result()
        patch[order] = got.patch.tolist()
        assert got.weight.tolist() == ([8, 8] if order == "patch" else got.weight.tolist())
    assert sorted(patch["patch"]) == [0, 1]
    assert -1 in patch["frame"]


def test_zero_and_equal_tokens_merge_to_the_budget() -> None:
    for value in (0.0, 0.1):
        compressor = TomeCompressor(3)
        for t in range(9):
            compressor.update(torch.full((2, 4), value), t, t + 1)
        got = compressor.result()
        assert len(got) == 3
        torch.testing.assert_close(got.tokens, torch.full((3, 4), value))


def test_options_are_checked() -> None:
    with pytest.raises(CompressionError, match=r"no order 'frames' \(did you mean 'frame'\?\); there are patch, frame"):
        TomeCompressor(4, order="frames")
    with pytest.raises(CompressionError, match="no schedule 'linear'; there are ratio, constant"):
        TomeCompressor(4, schedule="linear")
    for rounds in (0, 2.0, True):
        with pytest.raises(CompressionError, match=f"rounds must be a whole number, at least 1, got {rounds!r}"):
            TomeCompressor(4, rounds=rounds)  # type: ignore[arg-type]
