"""What all attentions share: heads, log weights, one softmax through torch's kernel, and the checks of what comes in.

Shapes: n tokens attended to, q queries, d and dv widths of keys and values, H heads, dh = d / H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

from csat_fusion.errors import CompressionError
from csat_fusion.precision import without_autocast

__all__ = [
    "attend",
    "broadcast_lead",
    "check_inputs",
    "check_like",
    "check_weights",
    "is_symbol",
    "join_heads",
    "log_weight",
    "split_all",
    "split_heads",
]


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """``[..., t, H * w]`` to ``[..., H, t, w]``."""
    return tokens.reshape(*tokens.shape[:-1], heads, tokens.shape[-1] // heads).transpose(-3, -2)


def split_all(
    query: Tensor, key: Tensor, value: Tensor, heads: int, lead: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """All three with the leading dimensions ``lead``, split into heads."""
    q, k, v = (split_heads(t.expand(*lead, *t.shape[-2:]), heads) for t in (query, key, value))
    return q, k, v


def join_heads(tokens: Tensor) -> Tensor:
    """``[..., H, t, w]`` to ``[..., t, H * w]``."""
    return tokens.transpose(-3, -2).flatten(-2)


def log_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``log weight`` in ``dtype``, taken in float32 at least; ``-inf`` where the weight is 0, with a gradient of 0."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    kept = wide > 0
    # log of 1 where masked: its gradient is finite, and the mask is put in afterwards
    return torch.where(kept, torch.where(kept, wide, 1.0).log(), -math.inf).to(dtype)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``softmax(query key^T * scale + bias) value`` and, where asked for, the softmax itself (before dropout).

    Without ``need_weights`` torch's ``scaled_dot_product_attention`` does it, with the bias as an additive mask, so
    that a memory-efficient kernel serves where there is one. A query whose every bias is ``-inf`` attends to nothing:
    its context and its weights are zero.

    Args:
        query: ``[..., H, q, dh]``; key: ``[..., H, n, dh]``; value: ``[..., H, n, dv]``.
        bias: broadcastable to ``[..., H, q, n]``, added to the scores.
        scale: ``1 / sqrt(dh)`` where None.
    """
    alive = None
    if bias is not None:
        alive = (bias > -math.inf).any(dim=-1, keepdim=True)
        bias = torch.where(alive, bias, 0.0).to(query.dtype)
    if not need_weights:
        if bias is not None:
            bias = bias.expand(*bias.shape[:-2], query.shape[-2], key.shape[-2])
        context = scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)
        return (context if alive is None else torch.where(alive, context, 0.0)), None
    factor = scale if scale is not None else query.shape[-1] ** -0.5
    wide = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query.device):  # in half precision scores overflow that the fused kernel keeps in float32
        scores = (query.to(wide) * factor) @ key.to(wide).mT
        weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        if alive is not None:
            weights = torch.where(alive, weights, 0.0)
        context = drop(weights, dropout) @ value.to(wide)
    return context.to(value.dtype), weights.to(value.dtype)


def check_like(parameter: Tensor, **tensors: Tensor) -> None:
    """All on the device of ``parameter`` and in its type; under autocast in any type that autocast would cast.

    Raises:
        CompressionError: one is not.
    """
    device = parameter.device.type
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    for name, tensor in tensors.items():
        if tensor.device != parameter.device:
            raise CompressionError(f"{name} is on {tensor.device}, the parameters are on {parameter.device}")
        castable = cast and torch.float64 not in (tensor.dtype, parameter.dtype)  # autocast leaves float64 alone
        if tensor.dtype != parameter.dtype and not castable:
            raise CompressionError(
                f"{name} is {tensor.dtype}, the parameters are {parameter.dtype}; they must agree unless autocast is on"
            )


def is_symbol(number: object) -> bool:
    """``torch.export`` has it as a symbol: a comparison would fix what it may be."""
    return isinstance(number, torch.SymInt)


def check_inputs(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float | None = None) -> tuple[int, ...]:
    """The leading dimensions that ``query [..., q, d]``, ``key [..., n, d]`` and ``value [..., n, dv]`` broadcast to.

    Raises:
        CompressionError: shapes, types or devices disagree, nothing to attend to, or heads that do not divide.
    """
    shapes = f"query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise CompressionError(f"attention needs query [.., q, d], key [.., n, d], value [.., n, dv]; got {shapes}")
    if query.shape[-1] != key.shape[-1]:
        raise CompressionError(f"query and key must be equally wide, got {shapes}")
    if key.shape[-2] != value.shape[-2]:
        raise CompressionError(f"key and value must hold the same number of tokens, got {shapes}")
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
    lead = broadcast_lead(shapes, query.shape[:-2], key.shape[:-2], value.shape[:-2])
    if not query.is_floating_point() or not (query.dtype == key.dtype == value.dtype):
        raise CompressionError(
            f"query, key and value must be of one floating-point type, got {query.dtype}, {key.dtype}, {value.dtype}"
        )
    if not (query.device == key.device == value.device):
        raise CompressionError(
            f"query, key and value must be on one device, got {query.device}, {key.device}, {value.device}"
        )
    return lead


def broadcast_lead(shapes: str, *leads: tuple[int, ...]) -> tuple[int, ...]:
    """The leading dimensions that all broadcast to; ``shapes`` says in an error what was given."""
    try:
        return tuple(torch.broadcast_shapes(*leads))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise CompressionError(f"leading dimensions must broadcast, got {shapes}") from error


def check_weights(weight: Tensor, tokens: Tensor, *, some: bool = True) -> None:
    """``weight [..., n]`` fits ``tokens [..., n, d]``: finite, at least 0 and, with ``some``, not all 0 in a row.

    Values are looked at in eager mode only: a program made by ``torch.export`` cannot raise on them.

    Raises:
        CompressionError: anything of that does not hold.
    """
    if weight.ndim < 1 or weight.shape[-1] != tokens.shape[-2]:
        raise CompressionError(
            f"weights must be [.., n] with the same number of tokens as the keys, "
            f"got weight {list(weight.shape)} for {list(tokens.shape)}"
        )
    if weight.is_complex() or weight.dtype == torch.bool:
        raise CompressionError(f"weights must be real numbers, got {weight.dtype}")
    if weight.device != tokens.device:
        raise CompressionError(f"weights and tokens must be on one device, got {weight.device} and {tokens.device}")
    if torch.compiler.is_compiling() or weight.device.type == "meta":
        return
    good = torch.isfinite(weight) & (weight >= 0)
    if bool((good.all() & (weight > 0).any(dim=-1).all()) if some else good.all()):
        return
    if bool(good.all()):
        raise CompressionError("all weights of a row are 0, so there is no token to attend to")
    raise CompressionError(f"weights must be finite and at least 0, got {float(weight[~good][0])}")
