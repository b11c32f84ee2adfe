"""Masks, weights and causal order, as what is added to the scores of an attention.

Shapes: B batch, H heads, q queries, n tokens given, m tokens attended to, dh width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from csat_fusion.attention.core import check_weights, log_weight
from csat_fusion.attention.merge import merge_bias
from csat_fusion.errors import CompressionError

__all__ = ["combined", "pair_bias", "token_ends", "token_masses"]


def pair_bias(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    end: Tensor | None,
    query_seconds: Tensor | None,
    merged: tuple[Tensor, Tensor] | None = None,
) -> Tensor | None:
    """What ``attn_mask`` and causal order add to the scores of ``query [B, H, q, dh]`` and ``key [B, H, m, dh]``.

    ``end [B, m]`` says until when each token lasts, where the use is causal; queries without ``query_seconds [B, q]``
    are at the positions 1 to q. ``merged``: the row and the share ``[B, n]`` of each token in the m keys, where they
    are merged ones; the mask is over the n tokens then, and is merged with them (:func:`merge_bias`). Broadcastable to
    ``[B, H, q, m]``; ``None`` where there is neither mask nor order.
    """
    if mask is None and end is None:
        return None
    batch, heads, q, _ = query.shape
    m = key.shape[-2]
    bias = None
    if mask is not None:
        n = m if merged is None else merged[0].shape[-1]
        if mask.shape not in ((q, n), (batch * heads, q, n)):
            raise CompressionError(
                f"attn_mask must be [{q}, {n}] or [{batch * heads}, {q}, {n}] for {q} queries and the {n} tokens "
                f"given, got {list(mask.shape)}"
            )
        if mask.device != query.device:
            raise CompressionError(f"attn_mask must be on {query.device} as the query is, got {mask.device}")
        # merged in float32 at least: half precision would not hold the shares
        bias = _additive("attn_mask", mask, query.dtype if merged is None else _wide(mask, query))
        bias = bias.reshape(batch, heads, q, n) if mask.ndim == 3 else bias[None, None]
        if merged is not None:
            bias = merge_bias(bias, *merged, m).to(query.dtype)
    if end is not None:
        now = torch.arange(1, q + 1, device=end.device)[None] if query_seconds is None else query_seconds
        wide = torch.promote_types(end.dtype, now.dtype)
        later = end.to(wide)[:, None, None, :] > now.to(wide)[:, None, :, None]
        causal = torch.zeros((), dtype=query.dtype, device=query.device).masked_fill(later, -math.inf)
        bias = causal if bias is None else bias + causal
    return bias


def _wide(mask: Tensor, query: Tensor) -> torch.dtype:
    given = mask.dtype if mask.is_floating_point() else query.dtype
    return torch.promote_types(torch.promote_types(given, query.dtype), torch.float32)


def _additive(name: str, mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros((), dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise CompressionError(f"{name} must be bool or floating point, got {mask.dtype}")
    seen = not torch.compiler.is_compiling() and not mask.is_meta
    if seen and not bool((mask < math.inf).all()):  # NaN is not below either
        raise CompressionError(f"{name} must be finite or -inf, got {float(mask[~(mask < math.inf)][0])}")
    return mask.to(dtype)


def token_masses(key: Tensor, weights: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """How many tokens each key stands for, 0 where it is masked, ``[B, n]`` in float32 at least; ``None``: one each."""
    if weights is not None:
        check_weights(weights, key, some=False)
    if padding is None:
        return weights
    if padding.shape != key.shape[:2]:
        raise CompressionError(f"key_padding_mask must be {list(key.shape[:2])}, got {list(padding.shape)}")
    if padding.device != key.device:
        raise CompressionError(f"key_padding_mask must be on {key.device} as the keys are, got {padding.device}")
    if padding.dtype == torch.bool:
        factor = (~padding).to(torch.float32)
    else:
        scores = _additive("key_padding_mask", padding, torch.promote_types(padding.dtype, torch.float32))
        top = scores.amax(dim=-1, keepdim=True)  # a factor common to all tokens cancels, and could overflow
        factor = (scores - torch.where(top > -math.inf, top, 0.0)).exp()
    return factor if weights is None else weights * factor


def token_ends(query: Tensor, key: Tensor, end: Tensor | None, query_seconds: Tensor | None) -> Tensor:
    """Until when each token lasts, ``[B, n]``: seconds where queries have a time, else positions from 1 to n."""
    if query_seconds is None:
        if query.shape[1] != key.shape[1]:
            raise CompressionError(
                f"is_causal without query_seconds needs as many queries as tokens, "
                f"got {query.shape[1]} queries and {key.shape[1]} tokens"
            )
        return torch.arange(1, key.shape[1] + 1, device=key.device).expand(key.shape[:2])
    if end is None:
        raise CompressionError("is_causal with query_seconds needs end_seconds, so that it is known what had ended")
    if query_seconds.shape != query.shape[:2]:
        raise CompressionError(f"query_seconds must be {list(query.shape[:2])}, got {list(query_seconds.shape)}")
    return end


def combined(weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Log weight of the tokens plus the bias of pairs, broadcastable to ``[B, H, q, m]``; ``None`` where neither is."""
    if weight is None:
        return bias
    logs = log_weight(weight, dtype)[:, None, None, :]
    return logs if bias is None else logs + bias
