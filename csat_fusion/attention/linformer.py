"""Linformer: keys and values are mixed over the token axis by learned matrices.

Linformer: Self-Attention with Linear Complexity, S. Wang, B. Z. Li, M. Khabsa, H. Fang and H. Ma, 2020,
arXiv 2006.04768: ``softmax(Q (E K)^T / sqrt d) (F V)`` with E, F ``[m, n]`` learned for one fixed n, shared by the
heads of a layer.

Shapes: q queries, n tokens, m mixed rows, d and dv widths of keys and values, H heads, dh width of a head.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from csat_fusion.attention.base import Attended, CrossAttention, seeded, whole_number
from csat_fusion.attention.core import attend, check_inputs, check_weights, is_symbol, join_heads, split_all
from csat_fusion.compressors.budget import Budget, Ratio, parse_budget
from csat_fusion.errors import CompressionError

__all__ = ["LinformerCrossAttention", "linformer_attention", "rows_kept", "rows_of"]


def linformer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mix_keys: Tensor,
    mix_values: Tensor,
    *,
    heads: int = 1,
    scale: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """``softmax(query (E key)^T * scale) (F value)``.

    Args:
        query: ``[..., q, d]``; key: ``[..., n, d]``; value: ``[..., n, dv]``.
        mix_keys, mix_values: E and F, ``[m, n]``.
        heads, scale: as :func:`csat_fusion.attention.exact.exact_attention`.
        weights: ``[..., n]``; columns of E and F count that often, 0 masks. The paper says nothing of it.

    Returns:
        ``[..., q, dv]``.

    Raises:
        CompressionError: shapes, types or devices disagree.
    """
    lead = check_inputs(query, key, value, heads, scale)
    for name, mix in (("mix_keys", mix_keys), ("mix_values", mix_values)):
        if mix.ndim != 2 or mix.shape[1] != key.shape[-2] or mix.shape[0] < 1:
            raise CompressionError(f"{name} must be [m, {key.shape[-2]}] for these tokens, got {list(mix.shape)}")
    if weights is not None:
        check_weights(weights, key)
    parts = split_all(query, key, value, heads, lead)
    return join_heads(_mixed(*parts, mix_keys, mix_values, weights, scale=scale).context)


class LinformerCrossAttention(CrossAttention):
    """Attention to m learned mixtures of exactly n tokens; parameters ``mix_keys`` and ``mix_values`` ``[m, n]``.

    Args:
        embed_dim, num_heads: as :class:`csat_fusion.attention.base.CrossAttention`, as are the ``shared`` ones.
        budget: m, or a share of n.
        tokens: n; calls with another number of tokens are refused, as the paper's matrices are made for one.
    """

    takes_pair_masks = False

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        budget: Budget | str,
        tokens: int | None,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(embed_dim, num_heads, seed=seed, **shared)
        if tokens is None:
            raise CompressionError("Linformer needs tokens, the number n that its matrices are made for, got None")
        self.tokens = whole_number("tokens", tokens)
        rows = rows_of("Linformer", budget, tokens)
        generator = torch.Generator().manual_seed(seed + 1)
        like = {"device": self.out_proj.weight.device, "dtype": self.out_proj.weight.dtype}
        # variance 1 / m, as the Johnson-Lindenstrauss lemma behind the paper has it
        bound = (3 / rows) ** 0.5
        self.mix_keys: nn.Parameter = seeded((rows, tokens), generator, bound, **like)
        self.mix_values: nn.Parameter = seeded((rows, tokens), generator, bound, **like)

    def state_numbers(self, tokens: int) -> int:
        """``2 m dh``, whatever n: mixed keys and values can be summed as tokens come, up to the n made for."""
        return 2 * len(self.mix_keys) * self.head_dim

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        if key.shape[-2] != self.tokens:
            raise CompressionError(f"this Linformer was made for {self.tokens} tokens, got {key.shape[-2]}")
        dropout = self.dropout if self.training else 0.0
        return _mixed(query, key, value, self.mix_keys, self.mix_values, weight, dropout=dropout, need_weights=need)


def _mixed(
    query: Tensor, key: Tensor, value: Tensor, mix_k: Tensor, mix_v: Tensor, weight: Tensor | None, **options: Any
) -> Attended:
    if weight is not None:
        each = weight[..., None, :, None].to(key.dtype)
        key, value = key * each, value * each
    mix_k, mix_v = mix_k.to(key.dtype), mix_v.to(key.dtype)
    context, measurements = attend(query, mix_k @ key, mix_v @ value, **options)
    if measurements is None:
        return Attended(context)
    tokens = measurements @ mix_v.to(measurements.dtype)
    if weight is not None:
        tokens = tokens * weight[..., None, None, :].to(tokens.dtype)
    return Attended(context, measurements, tokens)


def rows_kept(budget: int | Ratio, tokens: int) -> int:
    """m of n ``tokens``, at most n; whole-number arithmetic where ``torch.export`` has n as a symbol."""
    if not isinstance(budget, Ratio):
        return min(budget, tokens)
    if not is_symbol(tokens):
        return budget.limit(tokens)
    # A product of floats would not go into a saved program. Shares that are no simple fraction are taken in 2^-40.
    part = Fraction(budget.share).limit_denominator(10**6)
    if abs(part / Fraction(budget.share) - 1) > 1e-12:
        part = Fraction(max(1, int(budget.share * (1 - 1e-12) * 2**40)), 2**40)
    return (tokens * part.numerator + part.denominator - 1) // part.denominator


def rows_of(what: str, budget: Budget | str, tokens: int | None) -> int:
    """m for a budget that is a number, or a share of ``tokens``."""
    limit = parse_budget(budget)
    if isinstance(limit, Ratio):
        if tokens is None:
            raise CompressionError(f"{what} with a ratio of {limit.share} needs tokens, the number n")
        return limit.limit(tokens)
    if not isinstance(limit, int):
        raise CompressionError(f"{what} needs a budget of tokens or a ratio, got {budget!r}")
    return limit
