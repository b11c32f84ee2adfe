"""k-means over the tokens of a whole window.

Stuart P. Lloyd, "Least squares quantization in PCM", 1982; started as by David Arthur and Sergei Vassilvitskii,
"k-means++: The Advantages of Careful Seeding", 2007, in its greedy form (the best of several drawn tokens each time).

Shapes: n tokens, d width, m tokens kept, L tokens drawn at a time.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window
from csat_fusion.compressors.similarity import group_rows
from csat_fusion.errors import CompressionError

__all__ = ["KMeansCompressor"]

_BLOCK_NUMBERS = 16_000_000  # distances of a block of work: 64 MB in float32


class KMeansCompressor(OfflineCompressor):
    """Lloyd's algorithm with weights, exactly m clusters, none of them empty; every kept token is a cluster's mean.

    Args:
        budget: m, tokens to keep.
        gap_seconds: ignored, the method knows no time.
        iterations: at most so many rounds of Lloyd's algorithm; fewer where no token changes its cluster.
        seed: of the start. The same seed gives the same clusters; with another dtype, device or version of torch,
            rounding may tell near ties apart otherwise.

    Raises:
        CompressionError: ``iterations`` is no whole number of at least 1, or ``seed`` no whole number.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        gap_seconds: float = 1.0,
        iterations: int = 25,
        seed: int = 0,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise CompressionError(f"iterations must be a whole number, at least 1, got {iterations!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise CompressionError(f"the seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
        self._iterations = iterations
        self._seed = seed

    def _group(self, window: Window, limit: int) -> Tensor:
        weight = window.weight
        # Distances are differences of squares: a common origin taken away, they keep their digits; and at most 1 in
        # size, so that squares of very small values are not zero.
        tokens = window.tokens - (weight / weight.sum()).to(window.tokens.dtype) @ window.tokens
        largest = tokens.abs().amax()
        tokens = tokens / torch.where(largest > 0, largest, 1.0)
        square = (tokens * tokens).sum(dim=1)
        centres = tokens[_start(tokens, square, weight, limit, torch.Generator().manual_seed(self._seed))]
        group: Tensor | None = None
        for _ in range(self._iterations):
            before, group = group, _filled(*_nearest(tokens, square, centres), weight, limit)
            if before is not None and torch.equal(before, group):
                break
            centres = group_rows(tokens, weight, group)[0]
        assert group is not None
        return group


def _nearest(tokens: Tensor, square: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance of each token to its nearest centre, and which that is, each ``[n]``."""
    centre_square = (centres * centres).sum(dim=1)
    block = max(1, _BLOCK_NUMBERS // len(centres))
    found = [(centre_square - 2 * (part @ centres.T)).min(dim=1) for part in torch.split(tokens, block)]
    distance = torch.cat([f.values for f in found]) + square
    return distance.clamp_(min=0), torch.cat([f.indices for f in found])


def _filled(distance: Tensor, group: Tensor, weight: Tensor, count: int) -> Tensor:
    """``group [n]`` with every cluster in use: an empty one takes the costliest token of those that can spare it."""
    members = torch.bincount(group, minlength=count)
    empty = (members == 0).nonzero()[:, 0]
    if len(empty) == 0:
        return group
    cost = distance.double() * weight
    order = torch.argsort(cost, stable=True)
    order = order[torch.argsort(group[order], stable=True)]  # cluster after cluster, each from its cheapest token
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = group[order[1:]] != group[order[:-1]]
    cost[order[first]] = -1.0  # the token nearest to its centre stays
    taken = torch.argsort(cost, descending=True, stable=True)[: len(empty)]
    group = group.clone()
    group[taken] = empty
    return group


def _start(tokens: Tensor, square: Tensor, weight: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most ``count`` tokens to start from: each drawn in proportion to its cost so far, fewer where none is left.

    ``2 + log(count)`` are drawn, and the one taken that leaves the least cost. Random numbers are drawn on the CPU, so
    that they are the same on every device.
    """
    n, draws = len(tokens), 2 + int(math.log(count))
    chosen = torch.zeros(count, dtype=torch.int64, device=tokens.device)
    nearest = torch.full((n,), torch.inf, dtype=torch.float64, device=tokens.device)
    cost = weight
    for k in range(count):
        ladder = torch.cumsum(cost, dim=0)
        if not float(ladder[-1]) > 0:  # every token lies on a chosen one
            return chosen[:k]
        random = torch.rand(draws, generator=generator, dtype=torch.float64).to(tokens.device)
        # 1 - random is above 0 and at most 1: no drawn step of the ladder is one of height 0
        drawn = torch.searchsorted(ladder, (1 - random) * ladder[-1]).clamp_(max=n - 1)
        product = tokens[drawn] @ tokens.T
        distance = (square[drawn, None] + square - 2 * product).clamp_(min=0).double()
        left = torch.minimum(distance, nearest)
        best = int((left @ weight).argmin()) if k else 0
        chosen[k] = drawn[best]
        nearest = left[best]
        cost = nearest * weight
    return chosen
