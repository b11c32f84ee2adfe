"""The temporal merging of DyCoke: in short windows of frames, a patch gives way to the same patch of an earlier frame.

Keda Tao, Can Qin, Haoxuan You, Yang Sui, Huan Wang, "DyCoke: Dynamic Compression of Tokens for Fast Video Large
Language Models", 2024, arXiv 2411.15024. Written from the paper.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m tokens kept, L lines of w tokens, k of
them that may merge.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import flag
from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.similarity import directions
from csat_fusion.errors import CompressionError
from csat_fusion.tables import nearest_name

__all__ = ["DycokeCompressor"]

_RANKINGS = ("frame", "video")


class DycokeCompressor(OfflineCompressor):
    """Token temporal merging, with the rate that meets the budget exactly.

    In a window of four frames, the second and fourth are compared patch by patch with the frame before, and the third
    with the first, by cosine; the most similar tokens are merged into the patch they were compared with. The first
    frame of a window stays. Where this departs from the paper: the second half of DyCoke, which prunes the cache of a
    language model while it decodes, has no place here; so the first frames of windows go through the same stage, four
    at a time, then the first of those, and so on; and where less than one frame may remain, the patches of the last one
    in their order.

    Args:
        budget: m, tokens to keep.
        gap_seconds: ignored: a window may span a hole in the stream.
        ranking: ``"frame"``: the same share of every frame of a stage, and a stage only when those before it are
            not enough, as in the paper. ``"video"``: the most similar pairs of all frames and stages, so that what
            moves keeps more tokens than what stands still; measured to be better.
        means: keep the mean of the tokens merged, not the earliest of them.

    Raises:
        CompressionError: ``ranking`` is none of these.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        ranking: str = "video",
        means: bool = True,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if ranking not in _RANKINGS:
            allowed = ", ".join(_RANKINGS)
            raise CompressionError(f"no ranking {ranking!r}{nearest_name(ranking, _RANKINGS)}; there are {allowed}")
        self._ranking = ranking
        self._means = flag("means", means)

    def _group(self, window: Window, limit: int) -> Tensor:
        unit = directions(window.tokens)
        parent = torch.arange(len(unit), device=unit.device)
        lines = parent.clone().view(window.shape)
        over_time, over_patches = _stages(lines), _stages(lines[:1].T)
        if self._ranking == "video":
            stages = [_joined(stages) for stages in (over_time, over_patches) if stages]
        else:
            stages = over_time + over_patches
        surplus = len(unit) - limit
        for child, target in stages:
            count = min(surplus, child.numel())
            similarity = (unit[child] * unit[target]).sum(dim=2)
            each, more = divmod(count, len(child))
            rank = similarity.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            merged = rank < each
            # What does not divide evenly: the next of each row, the most similar of them first.
            following = torch.where(rank == each, similarity, -torch.inf).amax(dim=1)
            row = following.argsort(descending=True, stable=True)[:more]
            merged[row] |= rank[row] == each
            parent[child[merged]] = target[merged]
            surplus -= count
        while not torch.equal(up := parent[parent], parent):
            parent = up
        group: Tensor = torch.unique(parent, return_inverse=True)[1]
        return group

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        if self._means:
            return None
        first = torch.argsort(group, stable=True)
        starts = torch.cumsum(torch.bincount(group), dim=0)
        return window.tokens[first[torch.cat([starts.new_zeros(1), starts[:-1]])]]


_Pairs = tuple[Tensor, Tensor]


def _stages(lines: Tensor) -> list[_Pairs]:
    """The stages that bring ``lines [L, w]`` down to the first: which rows (each ``[k, w]``) may merge into which."""
    stages: list[_Pairs] = []
    while len(lines) > 1:
        place = torch.arange(len(lines), device=lines.device)
        place = place[place % 4 != 0]
        stages.append((lines[place], lines[place - torch.where(place % 4 == 2, 2, 1)]))
        lines = lines[::4]
    return stages


def _joined(stages: list[_Pairs]) -> _Pairs:
    """All pairs of the stages as one row, so that they compete with each other."""
    child = torch.cat([child.flatten() for child, _ in stages])
    target = torch.cat([target.flatten() for _, target in stages])
    return child[None], target[None]
