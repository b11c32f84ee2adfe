"""Selection for a question: most of the budget for the tokens nearest to a query, the rest for all others, coarsely.

The choice among relevant tokens is the maximal marginal relevance of Jaime Carbonell and Jade Goldstein, "The Use of
MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries", 1998. That a text embedding steers
which visual tokens are kept is common in video language models; no one paper's method is followed.

Shapes: n tokens, d width, m tokens kept, q queries, f focus tokens, c = m - f context tokens.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csat_fusion.compressors.budget import Budget
from csat_fusion.compressors.offline import OfflineCompressor, Window, group_means
from csat_fusion.compressors.similarity import directions, nearest
from csat_fusion.errors import CompressionError

__all__ = ["QueryCompressor"]


class QueryCompressor(OfflineCompressor):
    """Keeps tokens relevant to a query and different from each other; the rest becomes means of stretches of time.

    The relevance of a token is its greatest cosine to a query, brought to 0 for the least and 1 for the most relevant
    token. ``focus`` of the budget goes to tokens chosen one by one with the greatest ``balance * relevance -
    (1 - balance) * redundancy``: the cosine of centred tokens to the most similar one chosen before, 0 where negative.
    A token not chosen joins the most similar chosen one where it is within the gap and nearer to it than to the mean of
    its stretch of time; all others are cut, in order of time, into equally many for each context token. So weights and
    spans hold, and what is asked for is not drowned. Tokens and queries must come from one embedding space.

    Args:
        budget: m, tokens to keep.
        query: ``[d]`` or ``[q, d]`` floating point, such as the embedding of a text; its length does not matter.
        gap_seconds: the most unseen time between a chosen token's own frame and that of a token that joins it. Context
            tokens ignore it; so does everything where there is none of them (m = 1, or ``focus=1``).
        focus: the share of the budget for relevant tokens, 0 < focus <= 1.
        balance: 1 looks at relevance alone, 0 at difference alone.

    Raises:
        CompressionError: an option is outside what is allowed; at ``update``: the query is not as wide as the tokens.
    """

    exact_budget: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget | str,
        *,
        query: Tensor,
        gap_seconds: float = 1.0,
        focus: float = 0.75,
        balance: float = 0.5,
        keep_assignment: bool = False,
    ) -> None:
        super().__init__(budget, gap_seconds=gap_seconds, keep_assignment=keep_assignment)
        if (
            not isinstance(query, Tensor)
            or not query.is_floating_point()
            or query.ndim not in (1, 2)
            or 0 in query.shape
        ):
            got = f"{query.dtype} {list(query.shape)}" if isinstance(query, Tensor) else type(query).__name__
            raise CompressionError(f"the query must be a floating-point tensor [d] or [q, d], got {got}")
        query = query.detach().clone().reshape(-1, query.shape[-1])
        if not bool((torch.isfinite(query).all(dim=1) & (query != 0).any(dim=1)).all()):
            raise CompressionError("a query must be finite and not zero, or it has no direction")
        for name, value in (("focus", focus), ("balance", balance)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise CompressionError(f"{name} must be a number from 0 to 1, got {value!r}")
        if focus == 0:
            raise CompressionError("focus must be above 0, got 0: without a focus the query would say nothing")
        self._query = query
        self._focus = focus
        self._balance = balance

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float, weight: float) -> None:
        if tokens.shape[1] != self._query.shape[1]:
            raise CompressionError(f"the query has width {self._query.shape[1]}, the tokens {tokens.shape[1]}")
        super()._take(tokens, start_seconds, end_seconds, weight)

    def _group(self, window: Window, limit: int) -> Tensor:
        tokens = window.tokens
        unit = directions(tokens)
        relevance = nearest(unit, directions(self._query.to(tokens)))[0]
        origin = (window.weight / window.weight.sum()).to(tokens.dtype) @ tokens
        focus = max(1, min(limit, round(self._focus * limit)))
        chosen = _diverse(directions(tokens, origin), relevance, focus, self._balance)
        context = limit - len(chosen)
        similarity, joined = nearest(unit, unit[chosen])
        joined[chosen] = torch.arange(len(chosen), device=chosen.device)
        if context == 0:
            return joined
        rest = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
        rest[chosen] = False
        stretch = _stretches(rest, context)
        means = directions(group_means(window, torch.where(rest, stretch, context)))
        advantage = similarity - (unit * means[stretch]).sum(dim=1)
        mine = chosen[joined]
        gap = torch.maximum(
            window.start_seconds - window.end_seconds[mine], window.start_seconds[mine] - window.end_seconds
        )
        # Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
        joins = rest & (advantage > 0) & (gap <= self._gap_seconds + 1e-9)
        # Context tokens need at least one token each: those that gain least by joining stay.
        best = torch.argsort(torch.where(joins, advantage, -torch.inf), descending=True, stable=True)
        joins[best[max(0, int(rest.sum()) - context) :]] = False
        rest &= ~joins
        return torch.where(rest, len(chosen) + _stretches(rest, context), joined)


def _diverse(unit: Tensor, relevance: Tensor, count: int, balance: float) -> Tensor:
    """``count`` of ``unit [n, d]`` by maximal marginal relevance, ``[count]`` in the order chosen."""
    low, high = relevance.min(), relevance.max()
    spread = torch.where(high > low, high - low, 1.0)
    # From 0 to 1, as what it is weighed against: cosines to a text often differ by hundredths alone.
    score = balance * (relevance - low) / spread
    closest = torch.zeros_like(score)
    chosen = torch.empty(count, dtype=torch.int64, device=unit.device)
    for k in range(count):
        best = (score - (1 - balance) * closest).argmax()
        chosen[k] = best
        score[best] = -torch.inf
        closest = torch.maximum(closest, unit @ unit[best])
    return chosen


def _stretches(rest: Tensor, count: int) -> Tensor:
    """Which of ``count`` stretches each token marked in ``rest [n]`` belongs to, equally many in each, in order."""
    place = torch.cumsum(rest, dim=0) - 1
    return (place * count // rest.sum()).clamp_(min=0)
