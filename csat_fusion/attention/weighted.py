"""Attention over merged tokens.

From first principles: a merged token of weight w stands for w tokens alike. In the softmax over those, its exponential
would appear w times, and ``w exp(q k) = exp(q k + log w)``. So adding ``log w`` to its score gives what the unmerged
tokens would give, exactly where they are identical. Seen from CS-VLM (arXiv 2507.02957), which attends to measurements
of the keys and values, it is what makes a measurement by weighted means sound.

Shapes: q queries, m merged tokens, d and dv widths of keys and values.
"""

from __future__ import annotations

from torch import Tensor

from csat_fusion.attention.core import (
    attend,
    broadcast_lead,
    check_inputs,
    check_weights,
    join_heads,
    log_weight,
    split_all,
)

__all__ = ["weighted_attention"]


def weighted_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor,
    *,
    heads: int = 1,
    scale: float | None = None,
) -> Tensor:
    """``softmax(query key^T * scale + log weight) value``, through torch's ``scaled_dot_product_attention``.

    Args:
        query: ``[..., q, d]``; key: ``[..., m, d]``; value: ``[..., m, dv]``, of one type and device, leading
            dimensions broadcast.
        weight: ``[..., m]``, how many tokens each key stands for; 0 masks it. Differentiable. Its logarithm is taken in
            float32 and added in the type of the query.
        heads: d and dv are split into this many heads, which attend apart and are put together again.
        scale: what scores are multiplied by; ``1 / sqrt(d / heads)`` where None.

    Returns:
        ``[..., q, dv]`` in the type of the query.

    Raises:
        CompressionError: shapes, types or devices disagree, a weight is negative or not finite, or all weights of a row
            are 0, so that there is nothing to attend to (values are looked at in eager mode only).
    """
    lead = check_inputs(query, key, value, heads, scale)
    check_weights(weight, key)
    lead = broadcast_lead(f"weight {list(weight.shape)} for key {list(key.shape)}", lead, weight.shape[:-1])
    query, key, value = split_all(query, key, value, heads, lead)
    bias = log_weight(weight, query.dtype)[..., None, None, :].expand(*lead, 1, 1, key.shape[-2])
    return join_heads(attend(query, key, value, bias, scale=scale)[0])
