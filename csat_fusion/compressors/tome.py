"""Token Merging, on the tokens of a whole window instead of inside a vision transformer.

Daniel Bolya, Cheng-Yang Fu, Xiaoliang Dai, Peizhao Zhang, Christoph Feichtenhofer, Judy Hoffman, "Token Merging: Your
ViT But Faster", 2022, arXiv 2210.09461. Written from the paper.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m tokens kept, c tokens left in a round.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.similarity import directions, group_rows, nearest
from csat_fusion.errors import CompressionError
from csat_fusion.tables import nearest_name

__all__ = ["TomeCompressor"]

_ORDERS = ("patch", "frame")
_SCHEDULES = ("ratio", "constant")


class TomeCompressor(OfflineCompressor):
    """Bipartite soft matching, round after round, down to the budget; every kept token is a mean weighted by size.

    A round takes the tokens left alternately into two sets, finds for each of the first its most similar in the second
    by cosine, and merges the most similar pairs. Where this departs from the paper: similarity is of the tokens
    themselves, as there are no attention keys outside a model; the tokens are not transformed between rounds; they stay
    in the order of the window, so that neighbours stay neighbours in the next round.

    Args:
        budget: m, tokens to keep.
        gap_seconds: ignored, the method knows no time.
        order: ``"patch"``: all frames of a patch, then the next patch; so the two sets are odd and even frames, and a
            patch can meet itself in time. ``"frame"``: frame after frame, where with an even P a patch never can.
        rounds: in how many rounds to reach the budget, where that can be: a round merges at most half. More rounds
            compare more and merge more carefully. The paper has one round a layer, 12 in a ViT-B.
        schedule: ``"ratio"``: each round merges the same share of what is left. ``"constant"``: the same number, the
            paper's schedule, made for models that keep a third or more: far below that its last rounds merge half of
            what is left at once.

    Raises:
        CompressionError: an option is none of these.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        order: str = "patch",
        rounds: int = 12,
        schedule: str = "ratio",
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if order not in _ORDERS:
            raise CompressionError(f"no order {order!r}{nearest_name(order, _ORDERS)}; there are {', '.join(_ORDERS)}")
        if schedule not in _SCHEDULES:
            allowed = ", ".join(_SCHEDULES)
            raise CompressionError(f"no schedule {schedule!r}{nearest_name(schedule, _SCHEDULES)}; there are {allowed}")
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise CompressionError(f"rounds must be a whole number, at least 1, got {rounds!r}")
        self._order = order
        self._rounds = rounds
        self._schedule = schedule

    def _group(self, window: Window, limit: int) -> Tensor:
        n = len(window.tokens)
        frames, patches = window.shape
        sequence = torch.arange(n, device=window.tokens.device)
        if self._order == "patch":
            sequence = sequence.view(frames, patches).T.reshape(-1)
        mean, size = window.tokens[sequence], window.weight[sequence]
        group = torch.empty_like(sequence)
        group[sequence] = torch.arange(n, device=group.device)
        share = (limit / n) ** (1 / self._rounds)
        while len(mean) > limit:
            if self._schedule == "ratio":
                surplus = len(mean) - int(share * len(mean))
            else:
                surplus = -(-(n - limit) // self._rounds)
            target = _matched(directions(mean), min(max(1, surplus), len(mean) - limit))
            mean, size = group_rows(mean, size, target)
            group = target[group]
        return group


def _matched(unit: Tensor, count: int) -> Tensor:
    """One round: where each of ``unit [c, d]`` goes, ``[c]``, numbered 0 to ``c - count - 1`` in the order of the rows.

    At most half of the rows can be merged; then ``count`` is taken as that.
    """
    similarity, match = nearest(unit[0::2], unit[1::2])
    best = torch.argsort(similarity, descending=True, stable=True)[: min(count, len(unit) // 2)]
    target = torch.arange(len(unit), device=unit.device)
    target[2 * best] = 2 * match[best] + 1
    stays = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
    stays[2 * best] = False
    place = torch.cumsum(stays, dim=0) - 1
    return place[target]
