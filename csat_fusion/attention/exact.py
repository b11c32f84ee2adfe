"""Exact softmax attention: what every other one is measured against.

Attention Is All You Need, Vaswani et al., 2017, arXiv 1706.03762; through torch's ``scaled_dot_product_attention``.

Shapes: q queries, n tokens, d width, H heads, dh = d / H.
"""

from __future__ import annotations

from torch import Tensor

from csat_fusion.attention.base import Attended, CrossAttention
from csat_fusion.attention.core import attend, check_inputs, join_heads, split_all
from csat_fusion.attention.masks import combined
from csat_fusion.attention.weighted import weighted_attention

__all__ = ["ExactCrossAttention", "exact_attention"]


def exact_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int = 1,
    scale: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """``softmax(query key^T * scale + log weights) value``: ``[..., q, dv]``; arguments and errors as
    :func:`csat_fusion.attention.weighted.weighted_attention`, with all weights 1 where ``None``."""
    if weights is not None:
        return weighted_attention(query, key, value, weights, heads=heads, scale=scale)
    lead = check_inputs(query, key, value, heads, scale)
    parts = split_all(query, key, value, heads, lead)
    return join_heads(attend(*parts, scale=scale)[0])


class ExactCrossAttention(CrossAttention):
    """Exact attention to all n tokens; loads the state dict of ``nn.MultiheadAttention``. Keeps ``2 n dh`` numbers."""

    def state_numbers(self, tokens: int) -> int:
        return 2 * tokens * self.head_dim

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        dropout = self.dropout if self.training else 0.0
        bias = combined(weight, bias, query.dtype)
        return Attended(*attend(query, key, value, bias, dropout=dropout, need_weights=need))
