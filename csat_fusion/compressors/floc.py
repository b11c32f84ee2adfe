"""Facility location: the m tokens that cover all others best by similarity, chosen greedily.

Janghoon Cho, Jungsoo Lee, Munawar Hayat, Kyuwoong Hwang, Fatih Porikli, Sungha Choi, "FLoC: Facility Location-Based
Efficient Visual Token Compression for Long Video Understanding", 2025, arXiv 2511.00141. The lazy evaluation is that of
Michel Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978. Written from the papers.

Shapes: T frames, P patch tokens a frame, n = T * P tokens, d width, m tokens kept, b candidates looked at together.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.base import flag
from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.similarity import directions, even_parts, even_share, nearest, noise
from csat_fusion.errors import CompressionError

__all__ = ["FlocCompressor", "facility_location"]

_KEPT_BYTES = 2**31  # similarities of all pairs are kept where they fit in here, else computed again when needed
_CANDIDATES = 64  # looked at together


class FlocCompressor(OfflineCompressor):
    """Keeps tokens that maximise ``sum_i weight_i max_{j kept} cosine(i, j)``; the others go to the most similar kept.

    The greedy choice is within ``1 - 1/e`` of the best. Where this departs from the paper: it keeps the chosen tokens
    as they are and drops the rest; here each stands for those most similar to it, by default as their mean, and
    cosines are by default those of centred tokens. Either can be turned off; which way is better depends on the tokens
    and on what is asked of them, centring above all: scripts/bench_compression.py measures both.

    Args:
        budget: m, tokens to keep.
        gap_seconds: ignored, the method knows no time.
        centred: take the window's mean token away before the cosines. Tokens of a vision transformer have much in
            common, so that without it all cosines are near 1.
        means: keep the mean of the tokens that each stands for, not the token itself.
        window_frames: choose within windows of this many frames, each with its share of the budget, as the paper does
            for long videos. None: all frames at once, with ``n * n`` similarities in memory up to 2 GB (23,000 tokens
            in float32), and beyond that computed again and again, slowly. Windows are made longer where the budget
            would not give each a token.

    Raises:
        CompressionError: ``window_frames`` is no whole number of at least 1.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        centred: bool = True,
        means: bool = True,
        window_frames: int | None = None,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if window_frames is not None and (
            isinstance(window_frames, bool) or not isinstance(window_frames, int) or window_frames < 1
        ):
            raise CompressionError(f"window_frames must be a whole number, at least 1, or None, got {window_frames!r}")
        self._centred = flag("centred", centred)
        self._means = flag("means", means)
        self._window_frames = window_frames
        self._kept: Tensor | None = None

    def _group(self, window: Window, limit: int) -> Tensor:
        frames, patches = window.shape
        windows = 1 if self._window_frames is None else min(limit, -(-frames // self._window_frames))
        sizes = [patches * count for count in even_parts(frames, windows)]
        groups: list[Tensor] = []
        kept: list[Tensor] = []
        first = made = 0
        for size, share in zip(sizes, even_share(limit, sizes), strict=True):
            part = slice(first, first + size)
            tokens, weight = window.tokens[part], window.weight[part]
            origin = None
            if self._centred:
                origin = (weight / weight.sum()).to(tokens.dtype) @ tokens
            unit = directions(tokens, origin)
            chosen = facility_location(unit, weight, share)
            group = nearest(unit, unit[chosen])[1]
            group[chosen] = torch.arange(share, device=group.device)  # also where another is equal to it
            groups.append(group + made)
            kept.append(chosen + first)
            first, made = first + size, made + share
        self._kept = torch.cat(kept)
        return torch.cat(groups)

    def _values(self, window: Window, group: Tensor) -> Tensor | None:
        return None if self._means or self._kept is None else window.tokens[self._kept]


def facility_location(unit: Tensor, weight: Tensor, count: int) -> Tensor:
    """Which ``count`` of ``unit [n, d]`` cover all best, ``[count]`` in the order chosen.

    Each choice adds ``sum_i weight_i max(0, cosine(i, j) - best_i)``, ``best_i`` being -1 before the first. What a
    candidate adds can only shrink, so what it added when last looked at is a bound, and only those whose bound is
    above the best so far are looked at again. When nothing more can be added, the rest is spread evenly.

    Args:
        unit: rows of length 1, or of zeros.
        weight: ``[n]``, how much each row counts, at least 0.
        count: at most n.
    """
    n = len(unit)
    weight = (weight / weight.sum()).to(unit.dtype)
    similarities = unit @ unit.T if n * n * unit.element_size() <= _KEPT_BYTES else None
    best = unit.new_full((n,), -1.0)
    added = unit @ (weight @ unit) + 1.0  # what each candidate adds, where looked at since the last choice
    bound = torch.full_like(added, -torch.inf)  # what it added when last looked at, where that was before
    chosen: list[int] = []
    while len(chosen) < count:
        most, top = added.max(dim=0)
        candidates = bound.topk(min(_CANDIDATES, n))
        doubtful = candidates.indices[candidates.values > most]
        if len(doubtful):
            cosine = similarities[doubtful] if similarities is not None else unit[doubtful] @ unit.T
            added[doubtful] = cosine.sub_(best + noise(unit.dtype)).clamp_(min=0) @ weight
            bound[doubtful] = -torch.inf
            continue
        if not float(most) > 0:
            break
        chosen.append(int(top))
        best = torch.maximum(best, similarities[top] if similarities is not None else unit @ unit[top])
        bound = torch.maximum(bound, added)
        bound[top] = -torch.inf
        added.fill_(-torch.inf)
    picked = torch.tensor(chosen, dtype=torch.int64, device=unit.device)
    left = torch.ones(n, dtype=torch.bool, device=unit.device)
    left[picked] = False
    rest, missing = left.nonzero()[:, 0], count - len(chosen)
    even = torch.arange(missing, device=unit.device) * len(rest) // max(1, missing)
    return torch.cat([picked, rest[even]])
