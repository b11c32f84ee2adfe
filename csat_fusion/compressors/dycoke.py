"""The temporal merging of DyCoke: in short windows of frames, a patch gives way to the same patch of an earlier frame.

Keda Tao, Can Qin, Haoxuan You, Yang Sui, Huan Wang, "DyCoke: Dynamic Compression of Tokens for Fast Video Large
Language Models", 2024, arXiv 2411.15024. Written from the paper.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m tokens kept, L places of a line of tokens.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import nearest_name
from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.similarity import directions, even_parts
from csat_fusion.errors import CompressionError

__all__ = ["DycokeCompressor"]

_RANKINGS = ("frame", "video")


class DycokeCompressor(OfflineCompressor):
    """Token temporal merging, with the rate that meets the budget exactly.

    In a window of four frames, the second and fourth are compared patch by patch with the frame before, and the third
    with the first, by cosine; of each of them the same share of tokens, the most similar, is merged into the patch it
    was compared with. The first frame of a window stays. Where this departs from the paper: the second half of DyCoke,
    which prunes the cache of a language model while it decodes, has no place here; so where the budget is less than the
    first frames of all windows, the stage is done again on those frames alone, and so on; and where less than one frame
    may remain, on the patches of that frame in their order.

    Args:
        budget: m, tokens to keep.
        gap_seconds: ignored: a window may span a hole in the stream.
        ranking: ``"frame"``: the same share of every frame that can give, as in the paper. ``"video"``: the most
            similar tokens of the whole video, so that what moves keeps more.
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
        ranking: str = "frame",
        means: bool = True,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if ranking not in _RANKINGS:
            allowed = ", ".join(_RANKINGS)
            raise CompressionError(f"no ranking {ranking!r}{nearest_name(ranking, _RANKINGS)}; there are {allowed}")
        self._ranking = ranking
        self._means = means

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        unit = directions(window.tokens)
        parent = torch.arange(len(unit), device=unit.device)
        lines = parent.view(frames, patches)  # [L, tokens that are compared with one another from place to place]
        surplus = len(unit) - limit
        while surplus:
            if len(lines) == 1:
                lines = lines.T  # one frame is left: its patches in their order
            surplus -= self._merge(unit, parent, lines, surplus)
            lines = lines[::4]
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

    def _merge(self, unit: Tensor, parent: Tensor, lines: Tensor, surplus: int) -> int:
        """One stage over ``lines [L, tokens]``: at most ``surplus`` tokens get a parent; how many did."""
        place = torch.arange(len(lines), device=unit.device)
        place = place[place % 4 != 0]
        if len(place) == 0:
            return 0
        before = place - torch.where(place % 4 == 2, 2, 1)
        child, target = lines[place], lines[before]
        similarity = (unit[child] * unit[target]).sum(dim=2)
        count = min(surplus, child.numel())
        if self._ranking == "video":
            order = torch.argsort(similarity.flatten(), descending=True, stable=True)[:count]
            chosen = torch.zeros(child.numel(), dtype=torch.bool, device=unit.device)
            chosen[order] = True
            chosen = chosen.view_as(child)
        else:
            quota = torch.tensor(even_parts(count, len(child)), device=unit.device)
            rank = similarity.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            chosen = rank < quota[:, None]
        parent[child[chosen]] = target[chosen]
        return count
