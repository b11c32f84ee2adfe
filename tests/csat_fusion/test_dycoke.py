"""DyCoke's temporal merging: who may merge into whom, how many of each frame, and below one frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from csat_fusion import CompressionError
from csat_fusion.compressors.dycoke import DycokeCompressor


def feed(budget: int, tokens: torch.Tensor, **options: Any) -> DycokeCompressor:
    compressor = DycokeCompressor(budget, keep_assignment=True, **options)
    for t, frame in enumerate(tokens):
        compressor.update(frame, t, t + 1)
    return compressor


def members(compressor: DycokeCompressor, patches: int) -> list[list[tuple[int, int]]]:
    """The groups as lists of (frame, patch), those of more than one."""
    found: dict[int, list[tuple[int, int]]] = {}
    for i, k in enumerate(compressor.assignment().tolist()):
        found.setdefault(k, []).append(divmod(i, patches))
    return sorted(group for group in found.values() if len(group) > 1)


def angles(*degrees: list[float]) -> torch.Tensor:
    """``[T, P, 2]`` from the direction of each token."""
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=2)


def test_second_goes_to_first_fourth_to_third_and_third_to_first() -> None:
    # between neighbours 10 and 12 degrees, between first and third 20, and 25 from window to window
    tokens = angles([0], [10], [20], [32], [57], [147], [237], [327])
    assert members(feed(7, tokens), 1) == [[(0, 0), (1, 0)]]
    assert members(feed(6, tokens), 1) == [[(0, 0), (1, 0)], [(2, 0), (3, 0)]]
    assert members(feed(5, tokens), 1) == [[(0, 0), (1, 0), (2, 0), (3, 0)]]
    # the first frames of windows, 57 degrees apart, are nearer than anything within the second
    assert members(feed(4, tokens), 1) == [[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]]


def test_of_one_frame_neighbouring_patches_merge_in_their_order() -> None:
    tokens = angles([0, 90, 10, 30, 200])
    for ranking in ("frame", "video"):
        assert members(feed(4, tokens, ranking=ranking), 5) == [[(0, 0), (0, 2)]]
        assert members(feed(3, tokens, ranking=ranking), 5) == [[(0, 0), (0, 2), (0, 3)]]


def test_by_frame_each_frame_gives_the_same_share() -> None:
    generator = torch.Generator().manual_seed(0)
    still, moving = torch.randn(8, 16, generator=generator), torch.randn(4, 8, 16, generator=generator)
    tokens = torch.cat([still.repeat(4, 1, 1) + 0.01 * torch.randn(4, 8, 16, generator=generator), moving])
    kept = {}
    for ranking in ("frame", "video"):
        assignment = feed(40, tokens, ranking=ranking).assignment().view(8, 8)
        kept[ranking] = [len(set(part.flatten().tolist())) for part in assignment.tensor_split(2)]
    assert kept["frame"] == [20, 20]
    assert kept["video"] == [8, 32]


def test_only_the_most_similar_patches_of_a_frame_merge() -> None:
    tokens = angles([0, 0, 0, 0], [50, 5, 60, 10])
    assert members(feed(6, tokens, ranking="frame"), 4) == [[(0, 1), (1, 1)], [(0, 3), (1, 3)]]


def test_stages_follow_each_other_down_to_one_token() -> None:
    tokens = torch.randn(23, 5, 6, generator=torch.Generator().manual_seed(0))
    for ranking in ("frame", "video"):
        for budget in (115, 114, 60, 30, 29, 10, 5, 4, 2, 1):
            compressor = feed(budget, tokens, ranking=ranking)
            assert len(compressor.result()) == budget
            if budget >= 5:  # patches of a frame merge only where less than one frame may remain
                assert (compressor.result().patch >= 0).all()
    windows = feed(30, tokens, ranking="frame").assignment().view(23, 5)
    for first in range(0, 20, 4):  # six windows of five patches: exactly the first frames are left
        assert (windows[first : first + 4] == windows[first]).all()


def test_kept_tokens_are_means_or_the_earliest() -> None:
    tokens = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0))
    for ranking in ("frame", "video"):
        means, first = (feed(11, tokens, ranking=ranking, means=means) for means in (True, False))
        assert torch.equal(means.assignment(), first.assignment())
        flat, assignment = tokens.flatten(0, 1), first.assignment()
        for k in range(11):
            mine = (assignment == k).nonzero()[:, 0]
            assert torch.equal(first.result().tokens[k], flat[mine[0]])
            torch.testing.assert_close(means.result().tokens[k], flat[mine].mean(dim=0))


def test_zero_and_equal_tokens_and_bad_options() -> None:
    for value in (0.0, 0.1):
        got = feed(3, torch.full((9, 2, 4), value)).result()
        torch.testing.assert_close(got.tokens, torch.full((3, 4), value))
    with pytest.raises(
        CompressionError, match=r"no ranking 'frames' \(did you mean 'frame'\?\); there are frame, video"
    ):
        DycokeCompressor(4, ranking="frames")
