"""Attention over merged tokens.

From first principles: a merged token of weight w stands for w tokens alike. In the softmax over those, its exponential
would appear w times, and ``w exp(q k) = exp(q k + log w)``. So adding ``log w`` to its score gives what the unmerged
tokens would give, exactly where they are identical. Seen from CS-VLM (arXiv 2507.02957), which attends to measurements
of the keys and values, it is what makes a measurement by weighted means sound.

Shapes: q queries, m merged tokens, d and dv widths of keys and values.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from csat_fusion.errors import CompressionError

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
            are 0, so that there is nothing to attend to.
    """
    lead = _check(query, key, value, weight, heads, scale)
    attended = weight > 0
    ok = torch.isfinite(weight).all() & (weight >= 0).all() & attended.any(dim=-1).all()
    if not bool(ok):
        _refuse_weights(weight)
    # log of 1 where masked: its gradient is finite, and the mask is put in afterwards
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    bias = torch.where(attended, torch.where(attended, wide, 1.0).log(), -math.inf).to(query.dtype)
    out = scaled_dot_product_attention(
        _split(query, heads, lead),
        _split(key, heads, lead),
        _split(value, heads, lead),
        attn_mask=bias[..., None, None, :].expand(*lead, 1, query.shape[-2], bias.shape[-1]),
        scale=scale,
    )
    return out.transpose(-3, -2).reshape(*lead, query.shape[-2], value.shape[-1])


def _split(tokens: Tensor, heads: int, lead: tuple[int, ...]) -> Tensor:
    """``[..., t, heads * w]`` to ``[..., heads, t, w]``."""
    tokens = tokens.expand(*lead, *tokens.shape[-2:])
    return tokens.reshape(*tokens.shape[:-1], heads, tokens.shape[-1] // heads).transpose(-3, -2)


def _check(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, heads: int, scale: float | None
) -> tuple[int, ...]:
    shapes = f"query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}, weight {list(weight.shape)}"
    if min(query.ndim, key.ndim, value.ndim) < 2 or weight.ndim < 1:
        raise CompressionError(
            f"attention needs query [.., q, d], key [.., m, d], value [.., m, dv], weight [.., m]; got {shapes}"
        )
    if query.shape[-1] != key.shape[-1]:
        raise CompressionError(f"query and key must be equally wide, got {shapes}")
    if not key.shape[-2] == value.shape[-2] == weight.shape[-1]:
        raise CompressionError(f"key, value and weight must hold the same number of tokens, got {shapes}")
    if key.shape[-2] == 0:
        raise CompressionError(f"attention needs at least one token to attend to, got {shapes}")
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
        raise CompressionError(f"heads must be a whole number, at least 1, got {heads!r}")
    if query.shape[-1] % heads or value.shape[-1] % heads or not query.shape[-1] or not value.shape[-1]:
        raise CompressionError(
            f"{heads} heads must divide the widths of keys and values, which are {key.shape[-1]} and {value.shape[-1]}"
        )
    if scale is not None and not math.isfinite(scale):
        raise CompressionError(f"scale must be finite, got {scale}")
    try:
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2], weight.shape[:-1])
    except ValueError as error:
        raise CompressionError(f"leading dimensions must broadcast, got {shapes}") from error
    if not query.is_floating_point() or not (query.dtype == key.dtype == value.dtype):
        raise CompressionError(
            f"query, key and value must be of one floating-point type, got {query.dtype}, {key.dtype}, {value.dtype}"
        )
    if not (query.device == key.device == value.device == weight.device):
        raise CompressionError(
            f"query, key, value and weight must be on one device, "
            f"got {query.device}, {key.device}, {value.device}, {weight.device}"
        )
    return lead


def _refuse_weights(weight: Tensor) -> None:
    bad = weight[~(torch.isfinite(weight) & (weight >= 0))]
    if bad.numel():
        raise CompressionError(f"weights must be finite and at least 0, got {float(bad[0])}")
    raise CompressionError("all weights of a row are 0, so there is no token to attend to")
