"""Where an attention looked: over its measurements, over the original tokens, and over their times.

Shapes: B batch, H heads (missing where averaged), q queries, m measurements, n tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from csat_fusion.errors import CompressionError

__all__ = ["AttentionMap"]


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """What ``need_weights="map"`` gives.

    ``measurements [B, H?, q, m]``: attention over what was attended to; ``tokens [B, H?, q, n]``: the same carried back
    to the tokens given, through the measurement. ``start_seconds`` and ``end_seconds`` ``[B, n]``: the half-open span
    of each token, where the call gave them. Softmax over tokens or weighted means gives rows of ``tokens`` that are
    non-negative and sum to one; a signed measurement does not.
    """

    measurements: Tensor
    tokens: Tensor
    start_seconds: Tensor | None = None
    end_seconds: Tensor | None = None

    def over_time(self, edges_seconds: Sequence[float] | Tensor) -> Tensor:
        """Attention in each bin ``[edge_k, edge_k+1)``: ``[B, H?, q, bins]``, in the type of ``tokens``.

        A token's attention lies evenly over its span; what lies outside all bins is not counted.

        Raises:
            CompressionError: the call gave no spans or one that does not end after it starts, or the edges are not at
                least two rising finite numbers.
        """
        if self.start_seconds is None or self.end_seconds is None:
            raise CompressionError("attention over time needs start_seconds and end_seconds in the attention's call")
        edges = torch.as_tensor(edges_seconds, dtype=torch.float64, device=self.tokens.device)
        if edges.ndim != 1 or len(edges) < 2 or not bool(torch.isfinite(edges).all() & (edges.diff() > 0).all()):
            raise CompressionError(f"edges must be at least two rising finite numbers of seconds, got {edges.tolist()}")
        start, end = (t.to(edges)[..., None] for t in (self.start_seconds, self.end_seconds))
        bad = ~(end > start)
        if bool(bad.any()):
            raise CompressionError(
                f"every token must end after it starts, got the span [{float(start[bad][0])}, {float(end[bad][0])})"
            )
        inside = (torch.minimum(end, edges[1:]) - torch.maximum(start, edges[:-1])).clamp_min(0.0)
        share = (inside / (end - start)).to(self.tokens.dtype)  # [B, n, bins]
        if self.tokens.ndim == share.ndim + 1:
            share = share.unsqueeze(-3)
        return self.tokens @ share
