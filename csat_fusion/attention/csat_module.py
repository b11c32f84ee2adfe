"""Compressed-sensing cross-attention as a module, usable in place of ``torch.nn.MultiheadAttention``.

CS-VLM: Compressed Sensing Attention for Efficient Vision-Language Representation Learning, Kiruluta, Raju and Burity,
2025, arXiv 2507.02957, in the readings of :mod:`csat_fusion.attention.csat`.

Shapes: B batch, q queries, n tokens given, m rows attended to, H heads, dh width of a head.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from csat_fusion.attention.base import Attended, CrossAttention, Memory
from csat_fusion.attention.core import attend
from csat_fusion.attention.masks import combined
from csat_fusion.attention.merge import merge_rows, row_masses, ward_rows
from csat_fusion.compressors.budget import Budget, Ratio, parse_budget
from csat_fusion.errors import CompressionError

__all__ = ["CSATCrossAttention"]


class CSATCrossAttention(CrossAttention):
    """Attend to m measurements of n tokens.

    Args:
        embed_dim, num_heads: as :class:`csat_fusion.attention.base.CrossAttention`, as are the ``shared`` ones.
        budget: m, or a :class:`Ratio` of n.
        gap_seconds: tokens with more unseen time than this between their spans are not merged; needs spans in the call.
        share: of the surplus, that one round of merging closes.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        budget: Budget | str,
        reading: str = "merged",
        gap_seconds: float = math.inf,
        share: float = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(embed_dim, num_heads, **shared)
        limit = parse_budget(budget)
        if not isinstance(limit, int | Ratio):
            raise CompressionError(f"CSAT needs a budget of tokens or a ratio, got {budget!r}")
        self.budget: int | Ratio = limit
        if reading != "merged":
            raise CompressionError(f"reading must be 'merged', got {reading!r}")
        self.reading = reading
        if not gap_seconds >= 0:
            raise CompressionError(f"gap_seconds must be at least 0, got {gap_seconds!r}")
        self.gap_seconds, self.share = float(gap_seconds), float(share)

    def rows(self, tokens: int) -> int:
        """m for n ``tokens``."""
        return self.budget.limit(tokens) if isinstance(self.budget, Ratio) else min(self.budget, tokens)

    def state_numbers(self, tokens: int) -> int:
        return self.rows(tokens) * (2 * self.head_dim + 1)

    def _compress(self, memory: Memory, start: Tensor | None, end: Tensor | None) -> Memory:
        n = memory.key.shape[1]
        m = self.rows(n)
        if memory.ready or m == n:
            return memory
        if self.gap_seconds < math.inf and (start is None or end is None):
            raise CompressionError(f"gap_seconds={self.gap_seconds} needs start_seconds and end_seconds in the call")
        weight = memory.weight
        if weight is None:
            weight = memory.key.new_ones(memory.key.shape[:2], dtype=torch.float32)
        assignment = ward_rows(
            memory.key,
            m,
            weight=memory.weight,
            start_seconds=start,
            end_seconds=end,
            gap_seconds=self.gap_seconds,
            share=self.share,
        )
        mass, share = row_masses(assignment, weight, m)
        key = merge_rows(memory.key, assignment, share, m)
        value = key if memory.value is memory.key else merge_rows(memory.value, assignment, share, m)
        last = memory.end
        if last is not None:
            first = torch.full((len(last), m), -(2**62) if not last.is_floating_point() else -math.inf).to(last)
            last = first.scatter_reduce(1, assignment, last, "amax")
        return replace(memory, key=key, value=value, weight=mass, end=last, assignment=assignment, share=share)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        dropout = self.dropout if self.training else 0.0
        bias = combined(weight, bias, query.dtype)
        return Attended(*attend(query, key, value, bias, dropout=dropout, need_weights=need))
