"""Performer: the softmax kernel by positive random features, so that keys and values are summed up beforehand.

Rethinking Attention with Performers, K. Choromanski, V. Likhosherstov, D. Dohan, X. Song, A. Gane, T. Sarlos, P.
Hawkins, J. Davis, A. Mohiuddin, L. Kaiser, D. Belanger, L. Colwell and A. Weller, 2020, arXiv 2009.14794 (FAVOR+)::

    exp(q k) = E phi(q) phi(k),   phi(x) = exp(omega x - |x|^2 / 2) / sqrt(r)
    out = phi(Q) (phi(K)^T V) / phi(Q) (phi(K)^T 1)

with the rows omega normal, and orthogonal in blocks of dh.

Shapes: q queries, n tokens, r random features, d and dv widths of keys and values, H heads, dh width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from csat_fusion.attention.base import Attended, CrossAttention, whole_number
from csat_fusion.attention.core import check_inputs, check_weights, join_heads, split_all
from csat_fusion.attention.linformer import rows_of
from csat_fusion.compressors.budget import Budget
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.hashing import checked_seed
from csat_fusion.precision import without_autocast

__all__ = ["PerformerCrossAttention", "orthogonal_features", "performer_attention"]

# Added to each feature after its largest was scaled to 1, so that a query unlike every key still has a denominator.
_FLOOR = 1e-6


def orthogonal_features(count: int, width: int, *, seed: int = 0) -> Tensor:
    """omega ``[count, width]``: rows of normal length, orthogonal to each other in blocks of ``width``; float32, CPU.

    Raises:
        CompressionError: a number is not a whole one, at least 1, or the seed not from 0 to 2^63 - 1.
    """
    whole_number("features", count)
    whole_number("width", width)
    generator = torch.Generator().manual_seed(checked_seed(seed))
    blocks = -(-count // width)
    normal = torch.randn(blocks, width, width, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]  # uniform over all rotations, and the same everywhere
    length = torch.randn(blocks * width, width, generator=generator, dtype=torch.float64).norm(dim=1)
    rows: Tensor = q.mT.reshape(-1, width) * length[:, None]
    return rows[:count].float()


def performer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    features: Tensor,
    *,
    heads: int = 1,
    scale: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Softmax attention estimated by positive random features.

    Args:
        query: ``[..., q, d]``; key: ``[..., n, d]``; value: ``[..., n, dv]``.
        features: omega, ``[r, d / heads]``, of :func:`orthogonal_features`.
        heads, scale: as :func:`csat_fusion.attention.exact.exact_attention`; scale must be above 0.
        weights: ``[..., n]``, how many tokens each key stands for; exact here, as the sums over keys are linear.

    Returns:
        ``[..., q, dv]``.

    Raises:
        CompressionError: shapes, types or devices disagree.
    """
    lead = check_inputs(query, key, value, heads, scale)
    width = query.shape[-1] // heads
    if features.ndim != 2 or features.shape[1] != width or len(features) < 1:
        raise CompressionError(f"features must be [r, {width}], got {list(features.shape)}")
    if scale is not None and scale <= 0:
        raise CompressionError(f"scale must be above 0, got {scale}")
    if weights is not None:
        check_weights(weights, key)
    parts = split_all(query, key, value, heads, lead)
    return join_heads(_estimated(*parts, features, weights, scale, 0.0, need=False).context)


class PerformerCrossAttention(CrossAttention):
    """FAVOR+ attention with r features of one seed, shared by the heads; buffer ``features [r, dh]``.

    Args:
        embed_dim, num_heads: as :class:`csat_fusion.attention.base.CrossAttention`, as are the ``shared`` ones.
        budget: m, or a share of ``tokens``: as many numbers are kept as m keys and values have.
        tokens: n, needed for a share only.
        features: r itself, instead of a budget.
    """

    takes_pair_masks = False
    features: Tensor

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        budget: Budget | str = None,
        tokens: int | None = None,
        features: int | None = None,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(embed_dim, num_heads, seed=seed, **shared)
        if (budget is None) == (features is None):
            raise CompressionError(f"Performer needs a budget or features, not both; got {budget!r} and {features!r}")
        if features is None:
            m = rows_of("Performer", budget, tokens)
            features = max(1, 2 * m * self.head_dim // (self.head_dim + 1))
        made = orthogonal_features(features, self.head_dim, seed=(seed + 1) % 2**63)
        self.register_buffer("features", made.to(self.out_proj.weight.device, self.out_proj.weight.dtype))

    def state_numbers(self, tokens: int) -> int:
        """``r (dh + 1)``, whatever n: the sums of features times values, and of features."""
        return len(self.features) * (self.head_dim + 1)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None, need: bool
    ) -> Attended:
        dropout = self.dropout if self.training else 0.0
        return _estimated(query, key, value, self.features, weight, None, dropout, need=need)


def _estimated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    features: Tensor,
    weight: Tensor | None,
    scale: float | None,
    dropout: float,
    *,
    need: bool,
) -> Attended:
    wide = torch.promote_types(query.dtype, torch.float32)
    root = (scale if scale is not None else query.shape[-1] ** -0.5) ** 0.5
    with without_autocast(query.device):  # exponentials in half precision would be 0 or infinite
        omega = features.to(wide)
        phi_q = _logs(query.to(wide) * root, omega)
        phi_k = _logs(key.to(wide) * root, omega)
        if weight is not None:
            masked = (weight <= 0)[..., None, :, None]
            phi_k = phi_k.masked_fill(masked, -torch.inf)
        # Any factor common to a query, or to all keys, cancels in the quotient.
        top_k = phi_k.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(wide).min)
        phi_q = (phi_q - phi_q.amax(dim=-1, keepdim=True)).exp() + _FLOOR
        phi_k = (phi_k - top_k).exp() + _FLOOR
        if weight is not None:
            phi_k = phi_k * weight[..., None, :, None].to(wide)
        phi_k = torch.nn.functional.dropout(phi_k, dropout)
        total = phi_q @ phi_k.sum(dim=-2)[..., None]  # [..., q, 1]
        some = total > 0
        total = torch.where(some, total, 1.0)  # no token to attend to: the context is zero, as both sums are
        context = (phi_q @ (phi_k.mT @ value.to(wide)) / total).to(value.dtype)
        weights = (phi_q @ phi_k.mT / total).to(value.dtype) if need else None
    return Attended(context, weights)


def _logs(tokens: Tensor, omega: Tensor) -> Tensor:
    """``log phi`` up to a constant: ``[..., t, r]``."""
    return tokens @ omega.mT - tokens.square().sum(dim=-1, keepdim=True) / 2
